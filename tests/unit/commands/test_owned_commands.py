"""Every command whose state alone knows the owner: the object of another is answered as a missing one."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.types_pb2 import OrderLine, ShippingAddress
from diptych.ticketing.v1 import command_service_pb2 as ticketing
from diptych.ticketing.v1.types_pb2 import LocalTime
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from command_server.contexts.banking.domain.mandate import make_mandate_id
from command_server.kernel.batch import Request
from command_server.kernel.context import CommandType, aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted, CommandResult
from runtime.grpc.access import rule_of
from tests.support.builders.requests import request
from tests.support.harness.contexts import CONTEXTS
from tests.support.harness.keys import get_ring
from tests.support.harness.memory_event_store import MemoryEventStore

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
OWNER, STRANGER, MISSING = "ada", "eve", "missing"
EURO = Money(currency_code="EUR", units=1)
LINE = OrderLine(sku="sku-1", title="A thing", quantity=1, unit_price=EURO)
SECOND = OrderLine(sku="sku-2", title="Another thing", quantity=1, unit_price=EURO)
THIRD = OrderLine(sku="sku-3", title="A third thing", quantity=1, unit_price=EURO)
HOME = ShippingAddress(recipient="Ada", address_lines=["Main Street 1"], locality="Town", region_code="DE")
OFFICE = ShippingAddress(recipient="Ada", address_lines=["Side Street 2"], locality="Town", region_code="DE")

KINDS = {name: kind for context in CONTEXTS for name, kind in command_types(context).items()}
AGGREGATES = aggregate_types(CONTEXTS)


@dataclass(frozen=True)
class Case:
    """How a command is called: on an object of OWNER, or on a missing one."""

    build: Callable[[str], Any]
    """Takes the object's id; returns the request."""
    id: str
    """Of the object of OWNER that exists."""
    begins: Callable[[], Iterable[Any]]
    """Returns the requests by which the object exists."""


def place_order() -> list[Any]:
    placed = ordering.PlaceOrderRequest(order_id="o-1", customer_id=OWNER, lines=[LINE, SECOND])
    placed.account_id, placed.warehouse_id = "a-1", "w-1"
    placed.shipping_address.CopyFrom(HOME)
    return [placed]


def open_accounts() -> list[Any]:
    opened = [
        banking.OpenAccountRequest(account_id=account_id, owner_id=owner, currency_code="EUR")
        for account_id, owner in (("a-1", OWNER), ("a-2", "bob"), ("empty", OWNER))
    ]
    amount = Money(currency_code="EUR", units=5)
    return [*opened, banking.DepositRequest(account_id="a-1", amount=amount, reference="pay")]


def transfer(account_id: str, transfer_id: str = "t-1") -> Any:
    return banking.TransferRequest(
        transfer_id=transfer_id,
        from_account_id=account_id,
        to_account_id="a-2",
        amount=EURO,
        reference="rent",
    )


def request_transfer(account_id: str) -> Any:
    message = transfer(account_id)
    return banking.RequestTransferRequest.FromString(message.SerializeToString())


def request_withdrawal(account_id: str) -> Any:
    return banking.RequestWithdrawalRequest(
        withdrawal_id="w-1", account_id=account_id, amount=EURO, reference="cash"
    )


def grant_mandate(account_id: str) -> Any:
    until = Timestamp()
    until.FromDatetime(NOW + timedelta(days=1))
    return banking.GrantMandateRequest(
        account_id=account_id, customer_id="bob", order_limit=EURO, total_limit=EURO, until=until
    )


def grant_mandates() -> list[Any]:
    return [*open_accounts(), grant_mandate("a-1")]


def hold_seats() -> list[Any]:
    doors = LocalTime(year=2027, month=2, day=15, hour=20, time_zone="Europe/Berlin")
    show = ticketing.ScheduleShowRequest(
        show_id="s-1", title="A play", venue="House", place_id="p-1", doors=doors, seats_per_buyer=4
    )
    show.sections.add(section_id="floor", price=EURO, capacity=8)
    deadline = Timestamp()
    deadline.FromDatetime(NOW + timedelta(minutes=10))
    return [
        show,
        ticketing.HoldSeatsRequest(
            booking_id="b-1", show_id="s-1", section_id="floor", buyer_id=OWNER, count=1, deadline=deadline
        ),
    ]


def sell_seats() -> list[Any]:
    buy = ticketing.BuySeatsRequest(booking_id="b-1", account_id="a-1")
    return [*hold_seats(), buy, ticketing.IssueTicketsRequest(booking_id="b-1")]


def build(message: Any, id_field: str, **fields: Any) -> Callable[[str], Any]:
    return lambda id_: message(**{id_field: id_}, **fields)


CASES = {
    "AddOrderLine": Case(build(ordering.AddOrderLineRequest, "order_id", line=THIRD), "o-1", place_order),
    "RemoveOrderLine": Case(
        build(ordering.RemoveOrderLineRequest, "order_id", sku="sku-2"), "o-1", place_order
    ),
    "ChangeShippingAddress": Case(
        build(ordering.ChangeShippingAddressRequest, "order_id", shipping_address=OFFICE), "o-1", place_order
    ),
    "CancelOrder": Case(build(ordering.CancelOrderRequest, "order_id", reason="enough"), "o-1", place_order),
    "Withdraw": Case(
        build(banking.WithdrawRequest, "account_id", amount=EURO, reference="cash"), "a-1", open_accounts
    ),
    "CloseAccount": Case(build(banking.CloseAccountRequest, "account_id"), "empty", open_accounts),
    "Transfer": Case(transfer, "a-1", open_accounts),
    "RequestTransfer": Case(request_transfer, "a-1", open_accounts),
    "RequestWithdrawal": Case(request_withdrawal, "a-1", open_accounts),
    "GrantMandate": Case(grant_mandate, "a-1", open_accounts),
    "RevokeMandate": Case(
        build(banking.RevokeMandateRequest, "mandate_id"), make_mandate_id("a-1", "bob"), grant_mandates
    ),
    "ReleaseSeats": Case(
        build(ticketing.ReleaseSeatsRequest, "booking_id", reason="enough"), "b-1", hold_seats
    ),
    "BuySeats": Case(build(ticketing.BuySeatsRequest, "booking_id", account_id="a-1"), "b-1", hold_seats),
    "ReturnTickets": Case(
        build(ticketing.ReturnTicketsRequest, "booking_id", reason="ill"), "b-1", sell_seats
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_command_whose_state_knows_the_owner_has_a_case() -> None:
    methods = [method for context in CONTEXTS for service in context.services for method in service.methods]
    rules = {method.name: rule_of(method) for method in methods}
    owned = {name for name, rule in rules.items() if rule.owner and not rule.is_in_request}
    assert owned == CASES.keys()


def find_kind(message: Any) -> CommandType:
    package, name = message.DESCRIPTOR.file.package, type(message).__name__.removesuffix("Request")
    return KINDS[f"{package}.CommandService.{name}"]


def to_request(message: Any, owners: frozenset[str] | None = None, version: int | None = None) -> Request:
    kind, scopes = find_kind(message), frozenset({"ordering.own-prices"})
    caller = next(iter(owners)) if owners else "clerk"
    command = kind.build_completion(get_ring)(kind.decode(message, caller, scopes, frozenset({caller})))
    options: dict[str, Any] = {"caller": caller, "kind": kind, "owners": owners}
    return request(command, content=message.SerializeToString(), expected_version=version, **options)


async def execute(store: MemoryEventStore, *requests: Request) -> list[Any]:
    commits = GroupCommit(store, AGGREGATES)
    pending = asyncio.gather(*map(commits.execute, requests), return_exceptions=True)
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    return [result.outcome if isinstance(result, CommandResult) else result for result in await pending]


@pytest.fixture
async def store(case: Case) -> MemoryEventStore:
    store = MemoryEventStore(lambda: NOW)
    for message in case.begins():
        (outcome,) = await execute(store, to_request(message))
        assert isinstance(outcome, Accepted), (message, outcome)
    return store


@each_case
async def test_the_object_of_another_is_answered_as_a_missing_one(
    case: Case, store: MemoryEventStore
) -> None:
    before, stranger = len(store.events), frozenset({STRANGER})
    takes_version = "expected_version" in find_kind(case.build(case.id)).request_fields
    for version in (None, 0, 1, 2) if takes_version else (None,):
        foreign, missing = await execute(
            store, *(to_request(case.build(id_), stranger, version) for id_ in (case.id, MISSING))
        )
        assert repr(foreign).replace(case.id, "ID") == repr(missing).replace(MISSING, "ID")
        assert not isinstance(foreign, Accepted)
    assert len(store.events) == before


@each_case
async def test_its_owner_changes_the_object(case: Case, store: MemoryEventStore) -> None:
    message = case.build(case.id)
    (outcome,) = await execute(store, to_request(message, frozenset({OWNER, "shop"})))
    assert isinstance(outcome, Accepted), outcome


async def test_a_transfer_of_another_cannot_be_repeated() -> None:
    store = MemoryEventStore(lambda: NOW)
    for message in (*open_accounts(), transfer("a-1")):
        (outcome,) = await execute(store, to_request(message))
        assert isinstance(outcome, Accepted)
    stranger, owner = frozenset({STRANGER}), frozenset({OWNER})
    (foreign,) = await execute(store, to_request(transfer("a-1"), stranger))
    assert foreign.reason == "ACCOUNT_NOT_FOUND"
    (own,) = await execute(store, to_request(transfer("a-1"), owner))
    assert isinstance(own, Accepted)
