"""The domain refuses by itself whatever its protos refuse."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from command_server.contexts.inventory.domain import reservation
from command_server.contexts.inventory.domain.messages import ReservationLine, ReserveStock
from command_server.contexts.ordering.domain import order
from command_server.contexts.ordering.domain.messages import PlaceOrder, ShippingGroup
from command_server.kernel import field_hints, field_rules
from command_server.kernel.context import Context
from command_server.kernel.decider import Rejected
from contracts.manifest import find_manifests
from diptych_testing.field_rules import check_field_rules
from diptych_testing.scenario import NOW
from runtime.process.contexts import load_parts
from tests.support.builders.orders import ADDRESS
from tests.support.ledger import rules as ledger

CONTEXTS = [*load_parts(list(find_manifests().values()), "commands", "CONTEXT", Context), ledger.CONTEXT]
RULES_TAG = b"\xbaH"
"""The tag of the option `buf.validate.field`, in front of its rules."""


def list_ruled_fields(message: Descriptor, path: str = "") -> Iterator[str]:
    """Yield the paths of the fields with rules, in a request and its nested messages."""
    for field in message.fields:
        if field.name in ("request_id", "expected_version"):
            continue
        field_path = f"{path}{field.name}"
        if RULES_TAG in field.GetOptions().SerializeToString():
            yield field_path
        if field.message_type is not None:
            yield from list_ruled_fields(field.message_type, f"{field_path}.")


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.name)
def test_every_decider_refuses_what_its_proto_refuses(context: Context) -> None:
    violated = check_field_rules(context)
    ruled = {
        (method.full_name, path)
        for service in context.services
        for method in service.methods
        for path in list_ruled_fields(method.input_type)
    }
    assert ruled
    assert ruled <= violated  # so no rule passes untried


def test_an_unchecked_command_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "check_fields", lambda _: None)
    with pytest.raises(
        AssertionError, match=r"HoldOrder: reason: passed to ORDER_NOT_FOUND \(string.max_len\)"
    ):
        check_field_rules(next(context for context in CONTEXTS if context.name == "ordering"))


def test_a_rule_that_is_stricter_than_the_proto_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_fields(command: Any) -> None:
        if getattr(command, "reason", "") == "x" * 500:
            raise Rejected(field_hints.FIELD_INVALID, field="reason", rule="must be shorter")
        field_rules.check_fields(command)

    monkeypatch.setattr(order, "check_fields", check_fields)
    with pytest.raises(AssertionError, match=r"HoldOrder: reason: refused: .*must be shorter"):
        check_field_rules(next(context for context in CONTEXTS if context.name == "ordering"))


@pytest.mark.parametrize(
    "groups", [(), (ShippingGroup("main", (), ADDRESS, "w-1"),)], ids=["no groups", "empty"]
)
def test_an_order_without_lines_is_refused(groups: tuple[ShippingGroup, ...]) -> None:
    with pytest.raises(Rejected) as caught:
        order.decide(PlaceOrder("o-1", "c-1", groups, "a-1"), order.Order(), NOW)
    assert caught.value.reason == "ORDER_HAS_NO_LINES"
    assert caught.value.details["field"] == ("shipping_groups[0].lines" if groups else "shipping_groups")


def test_a_reservation_without_lines_is_refused() -> None:
    command = ReserveStock("r-1", (), NOW)
    states = {"inventory.reservation.r-1": reservation.Reservation()}
    with pytest.raises(Rejected, match="RESERVATION_HAS_NO_LINES"):
        reservation.decide(command, states, NOW)


def test_a_time_without_a_zone_is_refused() -> None:
    command = ReserveStock("r-1", (ReservationLine("tea", "w-1", 1),), NOW.replace(tzinfo=None))
    with pytest.raises(Rejected, match="FIELD_INVALID"):
        reservation.decide(command, {"inventory.reservation.r-1": reservation.Reservation()}, NOW)
