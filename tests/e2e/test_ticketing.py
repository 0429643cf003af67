"""Ticketing through the whole stack: seats held, bought, returned and expired, and a show cancelled."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import query_service_pb2 as queries
from diptych.ticketing.v1.types_pb2 import Booking, LocalTime, Row, Section, Show
from google.type.money_pb2 import Money

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.process_managers import Call, FaultyClient, run_managers
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.trade import grant
from tests.support.harness.waiting import until

SCOPES = (
    *("ticketing.write", "ticketing.buy", "ticketing.read", "ticketing.waiting"),
    *("banking.open", "banking.deposit", "banking.mandate", "banking.read"),
)
BUYERS, SEATS = 24, 20
EUR = "EUR"


STEPS = ("hold_money", "firm_money", "issue", "capture_money", "refund")


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path_factory.mktemp("ticketing"), query_servers=1) as stack:
        yield stack


@pytest.fixture(scope="module", autouse=True)
async def client(stack: Stack) -> AsyncIterator[FaultyClient]:
    """The client of a process manager in the test's process."""
    client = FaultyClient(stack.settings)
    async with run_managers(stack.settings, client):
        yield client


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, *SCOPES)
    yield caller
    await caller.close()


@pytest.fixture
async def show_id(caller: Caller) -> str:
    """A show of two rows of ten seats at 20 EUR."""
    rows = [Row(label="A", seats=10), Row(label="B", seats=10)]
    doors = LocalTime(year=2999, month=7, day=1, hour=20, time_zone="Europe/Berlin")
    request = commands.ScheduleShowRequest(
        show_id=uuid4().hex,
        title="Hamlet",
        venue="Globe",
        place_id="london",
        doors=doors,
        sections=[Section(section_id="stalls", price=Money(currency_code=EUR, units=20), rows=rows)],
        seats_per_buyer=4,
    )
    await caller.execute(request)
    return request.show_id


def hold(
    show_id: str,
    buyer: str,
    count: int = 1,
    lifetime: timedelta = timedelta(minutes=5),
    booking_id: str = "",
) -> Any:
    request = commands.HoldSeatsRequest(
        booking_id=booking_id or uuid4().hex,
        show_id=show_id,
        section_id="stalls",
        buyer_id=buyer,
        count=count,
    )
    request.deadline.FromDatetime(datetime.now(UTC) + lifetime)
    return request


async def open_account(caller: Caller, units: int) -> str:
    account_id = uuid4().hex
    await caller.execute(banking.OpenAccountRequest(account_id=account_id, owner_id="ada", currency_code=EUR))
    amount = Money(currency_code=EUR, units=units)
    await caller.execute(banking.DepositRequest(account_id=account_id, amount=amount, reference="pay"))
    return account_id


async def buy(
    caller: Caller, show_id: str, account_id: str, buyer: str, count: int = 1, booking_id: str = ""
) -> str:
    request = hold(show_id, buyer, count, booking_id=booking_id)
    await caller.execute(request)
    await caller.execute(grant(account_id, buyer))
    buying = commands.BuySeatsRequest(booking_id=request.booking_id, account_id=account_id)
    token = (await caller.execute(buying)).consistency_token
    await caller.query(queries.GetBookingRequest(booking_id=request.booking_id, at_least_as_fresh=token))
    return str(request.booking_id)


async def wait_for_booking(caller: Caller, booking_id: str, state: Booking.State.ValueType) -> Any:
    async def is_in_state() -> bool:
        return bool((await read_booking(caller, booking_id)).state == state)

    await until(is_in_state)
    return await read_booking(caller, booking_id)


async def read_booking(caller: Caller, booking_id: str) -> Any:
    return (await caller.query(queries.GetBookingRequest(booking_id=booking_id))).booking


async def read_balance(caller: Caller, account_id: str) -> tuple[int, int]:
    account = (await caller.query(banking_queries.GetAccountRequest(account_id=account_id))).account
    return account.balance.units, account.held.units


async def test_many_buyers_get_each_seat_once(caller: Caller, show_id: str) -> None:
    async def one(number: int) -> str:
        try:
            await caller.execute(hold(show_id, f"u-{number}"))
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return "OK"

    outcomes = Counter(await asyncio.gather(*(one(number) for number in range(BUYERS))))
    assert outcomes == {"OK": SEATS, "SEATS_TAKEN": BUYERS - SEATS}

    async def is_full() -> bool:
        show = (await caller.query(queries.GetShowRequest(show_id=show_id))).show
        return [row.seats for row in show.sections[0].rows] == ["hhhhhhhhhh"] * 2

    await until(is_full)


async def test_tickets_are_paid_and_refunded_and_a_cancelled_show_is_settled(
    caller: Caller, show_id: str
) -> None:
    account = await open_account(caller, 130)
    kept, returned = [await buy(caller, show_id, account, f"buyer-{n}", 3) for n in range(2)]
    for booking_id in (kept, returned):
        sold = await wait_for_booking(caller, booking_id, Booking.STATE_SOLD)
        assert len(sold.tickets) == 3
    poor = await buy(caller, show_id, account, "poor")
    failed = await wait_for_booking(caller, poor, Booking.STATE_RELEASED)
    assert failed.end_reason == "FUNDS_INSUFFICIENT"
    await caller.execute(commands.ReturnTicketsRequest(booking_id=returned, reason="ill"))
    await until(lambda: has_balance(caller, account, (70, 0)))
    tickets = await caller.query(queries.ListTicketsRequest(buyer_id="buyer-0"))
    assert [booking.booking_id for booking in tickets.bookings] == [kept]
    await caller.execute(commands.CancelShowRequest(show_id=show_id, reason="rain"))
    await until(lambda: has_balance(caller, account, (130, 0)))

    async def is_settled() -> bool:
        show = (await caller.query(queries.GetShowRequest(show_id=show_id))).show
        return bool(show.state == Show.STATE_SETTLED)

    await until(is_settled)


async def has_balance(caller: Caller, account_id: str, expected: tuple[int, int]) -> bool:
    return await read_balance(caller, account_id) == expected


async def test_seats_of_an_expired_hold_come_back_to_those_who_watch(caller: Caller, show_id: str) -> None:
    token = (await caller.execute(hold(show_id, "ada", 4, timedelta(seconds=1)))).consistency_token
    shows = await caller.query(
        queries.ListShowsRequest(place_id="london", page_size=100, at_least_as_fresh=token)
    )
    assert show_id in {show.show_id for show in shows.shows}
    async with asyncio.timeout(20):
        async for response in caller.watch(queries.WatchAvailabilityRequest(show_id=show_id)):
            if response.availability.sections[0].available == SEATS:
                return


async def test_freed_seats_are_offered_to_who_waits(caller: Caller, show_id: str) -> None:
    holds = [hold(show_id, f"buyer-{number}", 2) for number in range(SEATS // 2)]
    for request in holds:
        await caller.execute(request)
    section = {"show_id": show_id, "section_id": "stalls"}
    waiting = commands.JoinWaitingListRequest(buyer_id="ada", booking_id=uuid4().hex, count=2, **section)
    token = (await caller.execute(waiting)).consistency_token
    request = queries.GetWaitingListRequest(at_least_as_fresh=token, **section)
    waiting_list = (await caller.query(request)).waiting_list
    assert [(entry.buyer_id, entry.count) for entry in waiting_list.entries] == [("ada", 2)]
    await caller.execute(
        commands.ReleaseSeatsRequest(booking_id=holds[0].booking_id, reason="changed my mind")
    )

    async def is_offered() -> bool:
        try:
            booking = await read_booking(caller, waiting.booking_id)
        except grpc.aio.AioRpcError:  # not found yet
            return False
        return bool(booking.state == Booking.STATE_HELD)

    await until(is_offered)


async def test_any_reply_may_be_lost_and_the_manager_killed_after_any_step(
    stack: Stack, client: FaultyClient, caller: Caller, show_id: str
) -> None:
    accounts: dict[str, str] = {}
    lost, killed_after = set[Call](), set[Call]()
    for step in STEPS:
        for expected, inject in ((lost, client.lose_replies), (killed_after, client.kill_after)):
            booking_id = uuid4().hex
            inject(booking_id, step)
            expected.add((booking_id, step))
            accounts[booking_id] = await open_account(caller, 30)
            await buy(caller, show_id, accounts[booking_id], booking_id, booking_id=booking_id)
    for booking_id, account in accounts.items():
        await wait_for_booking(caller, booking_id, Booking.STATE_SOLD)
        await until(lambda account=account: has_balance(caller, account, (10, 0)))  # type: ignore[misc]
        await caller.execute(commands.ReturnTicketsRequest(booking_id=booking_id, reason="ill"))
    for account in accounts.values():
        await until(lambda account=account: has_balance(caller, account, (30, 0)))  # type: ignore[misc]
    assert (client.lost, client.killed_after) == (lost, killed_after)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
