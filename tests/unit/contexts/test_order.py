"""Rules of ordering: the commands that each status of an order allows."""

import pytest

from command_server.contexts.ordering.domain import messages
from command_server.contexts.ordering.domain.messages import OrderPlaced
from command_server.contexts.ordering.domain.order import DECIDER, ORDER, Status, decide, evolve
from command_server.kernel.decider import Rejected
from diptych_testing.scenario import NOW, Scenario
from tests.support.builders import orders
from tests.support.builders.orders import (
    APPROVED,
    CANCELLED,
    COMMANDS,
    CONFIRMED,
    DELIVERED,
    HELD,
    HISTORIES,
    PLACE,
    PLACED,
    REJECTED,
    RETURNED,
    SHIPPED,
)
from tests.support.models.diagrams import read_diagram

order = Scenario(ORDER, DECIDER)
LINE_TOTAL = orders.LINE.unit_price * orders.LINE.quantity
PLACE_, ADD, REMOVE, SEND, HOLD, APPROVE, REJECT, CONFIRM, SHIP, DELIVER, RETURN, CANCEL = COMMANDS


def test_placing_an_order_sums_its_lines_exactly() -> None:
    order.given().when(PLACE).then(PLACED)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.NONE])
def test_an_order_is_placed_once(status: Status) -> None:
    order.given(*HISTORIES[status]).when(PLACE).then_rejected("ORDER_EXISTS", order_id="o-1")


@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda command: type(command).__name__)
def test_a_command_for_an_unknown_order_is_not_found(command: object) -> None:
    order.given().when(command).then_rejected("ORDER_NOT_FOUND", order_id="o-1")


@pytest.mark.parametrize(
    ("status", "command", "event"),
    [
        (Status.PLACED, HOLD, HELD),
        (Status.HELD, APPROVE, APPROVED),
        (Status.CONFIRMED, APPROVE, APPROVED),
        (Status.SHIPPED, APPROVE, APPROVED),
        (Status.DELIVERED, APPROVE, APPROVED),
        (Status.RETURNED, APPROVE, APPROVED),
        (Status.HELD, REJECT, REJECTED),
        (Status.PLACED, REJECT, REJECTED),
        (Status.PLACED, CONFIRM, CONFIRMED),
        (Status.CONFIRMED, SHIP, SHIPPED),
        (Status.SHIPPED, DELIVER, DELIVERED),
        (Status.DELIVERED, RETURN, RETURNED),
        (Status.PLACED, CANCEL, CANCELLED),
        (Status.HELD, CANCEL, CANCELLED),
        (Status.CONFIRMED, CANCEL, CANCELLED),
    ],
)
def test_an_order_changes_its_status(status: Status, command: object, event: object) -> None:
    order.given(*HISTORIES[status]).when(command).then(event)


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (Status.HELD, HOLD),
        (Status.PLACED, APPROVE),
        (Status.REJECTED, REJECT),
        (Status.CONFIRMED, CONFIRM),
        (Status.SHIPPED, SHIP),
        (Status.DELIVERED, DELIVER),
        (Status.RETURNED, RETURN),
        (Status.CANCELLED, CANCEL),
    ],
)
def test_a_command_for_the_current_status_changes_nothing(status: Status, command: object) -> None:
    order.given(*HISTORIES[status]).when(command).then()


@pytest.mark.parametrize(
    ("status", "commands", "reason"),
    [
        (Status.HELD, (ADD, REMOVE, SEND, CONFIRM, SHIP, DELIVER, RETURN), "ORDER_HELD"),
        (Status.PLACED, (SHIP,), "ORDER_NOT_CONFIRMED"),
        (Status.PLACED, (DELIVER,), "ORDER_NOT_SHIPPED"),
        (Status.CONFIRMED, (DELIVER,), "ORDER_NOT_SHIPPED"),
        (Status.PLACED, (RETURN,), "ORDER_NOT_DELIVERED"),
        (Status.CONFIRMED, (RETURN,), "ORDER_NOT_DELIVERED"),
        (Status.SHIPPED, (RETURN,), "ORDER_NOT_DELIVERED"),
        (Status.CONFIRMED, (ADD, REMOVE, SEND, HOLD, REJECT), "ORDER_ALREADY_CONFIRMED"),
        (Status.SHIPPED, (ADD, HOLD, REJECT, CONFIRM, CANCEL), "ORDER_ALREADY_SHIPPED"),
        (Status.DELIVERED, (ADD, HOLD, REJECT, CONFIRM, SHIP, CANCEL), "ORDER_ALREADY_DELIVERED"),
        (Status.RETURNED, (ADD, HOLD, CONFIRM, SHIP, DELIVER, CANCEL), "ORDER_ALREADY_RETURNED"),
        (Status.REJECTED, (ADD, HOLD, APPROVE, CONFIRM, SHIP, CANCEL), "ORDER_ALREADY_REJECTED"),
        (Status.CANCELLED, (ADD, HOLD, APPROVE, CONFIRM, SHIP, RETURN), "ORDER_ALREADY_CANCELLED"),
    ],
)
def test_a_command_that_the_status_forbids_is_rejected(
    status: Status, commands: tuple[object, ...], reason: str
) -> None:
    for command in commands:
        order.given(*HISTORIES[status]).when(command).then_rejected(reason, order_id="o-1")


def test_an_approved_order_can_be_confirmed_and_held_again() -> None:
    order.given(PLACED, HELD, APPROVED).when(CONFIRM).then(CONFIRMED)
    order.given(PLACED, HELD, APPROVED).when(HOLD).then(HELD)


def test_an_order_is_approved_once_until_it_is_edited() -> None:
    order.given(PLACED, HELD, APPROVED, CONFIRMED, SHIPPED).when(APPROVE).then()
    order.given(PLACED, CONFIRMED, APPROVED).when(APPROVE).then()
    edited = messages.OrderLineRemoved("o-1", "main", "sku-2", LINE_TOTAL, NOW)
    order.given(PLACED, HELD, APPROVED, edited, CONFIRMED).when(APPROVE).then(APPROVED)


def test_the_diagram_in_the_docs_matches_the_rules() -> None:
    assert read_diagram("ordering.md") == set(_find_transitions())


def _find_transitions() -> list[tuple[str, str, str]]:
    """Return (status before, status after, command class) of every transition, found by trial."""
    transitions = []
    for status, history in HISTORIES.items():
        before = ORDER.initial
        for event in history:
            before = evolve(before, event)
        for command in orders.COMMANDS:
            try:
                events = decide(command, before, NOW)
            except Rejected:
                continue
            if events:
                after = evolve(before, events[-1])
                transitions.append((_node(status), _node(after.status), type(command).__name__))
    return transitions


def _node(status: Status) -> str:
    return "[*]" if status is Status.NONE else status.name


def test_every_command_and_event_type_is_covered() -> None:
    assert {type(command) for command in COMMANDS} == set(DECIDER.commands)
    covered = {type(event) for history in HISTORIES.values() for event in history} | {type(APPROVED)}
    edits = {messages.OrderLineAdded, messages.OrderLineRemoved, messages.ShippingAddressChanged}
    assert covered | edits == set(ORDER.events)  # test_order_contents.py covers the edits
    assert OrderPlaced in covered
