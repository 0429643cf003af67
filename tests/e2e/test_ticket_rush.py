"""Ten thousand buyers want the 500 seats of one show, over connections that are cut all the time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub as BankingStub
from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import query_service_pb2 as queries
from diptych.ticketing.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ticketing.v1.types_pb2 import LocalTime, Row, Section
from diptych_client import OutcomeUnknown, Rejection, aio
from google.type.money_pb2 import Money

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.trade import grant
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long

CALLERS, SEATS, PRICE, IN_FLIGHT = 10_000, 500, 20, 64
CUT_INTERVAL = 0.7
"""Seconds between two cuts of all connections."""
SCOPES = (
    *("ticketing.write", "ticketing.buy", "ticketing.read", "ticketing.all"),
    *("banking.open", "banking.deposit", "banking.mandate", "banking.read", "banking.all"),
)
SOLD_OUT = ("SEATS_TAKEN", "SEATS_NOT_TOGETHER")


@pytest.fixture
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path_factory.mktemp("rush"), process_managers=1) as stack:
        yield stack


class Rush:
    """The callers of one show; all share one connection through a proxy."""

    def __init__(self, connection: aio.Connection, show_id: str, account_id: str) -> None:
        self._connection = connection
        self._commands: Any = CommandServiceStub(connection.channel)
        self._bank: Any = BankingStub(connection.channel)
        self._show_id, self._account_id = show_id, account_id
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.outcomes: Counter[str] = Counter()
        self.bought: dict[str, int] = {}

    async def want(self, number: int) -> None:
        """Ask for one to four seats, and for fewer if they are not there; buy them."""
        async with self._slots:
            for count in range(number % 4 + 1, 0, -1):
                booking_id = uuid4().hex
                reason = await self._hold(booking_id, f"buyer-{number}", count)
                if not reason:
                    self.bought[booking_id] = count
                    await self.send(self._bank.GrantMandate, grant(self._account_id, f"buyer-{number}"))
                    buy = commands.BuySeatsRequest(booking_id=booking_id, account_id=self._account_id)
                    await self.send(self._commands.BuySeats, buy)
                    break
            self.outcomes[reason or "OK"] += 1

    async def _hold(self, booking_id: str, buyer: str, count: int) -> str:
        """Hold seats; return why not, or nothing."""
        request = commands.HoldSeatsRequest(
            booking_id=booking_id,
            show_id=self._show_id,
            section_id="stalls",
            buyer_id=buyer,
            count=count,
        )
        request.deadline.FromDatetime(datetime.now(UTC) + timedelta(minutes=50))
        try:
            await self.send(self._commands.HoldSeats, request)
        except Rejection as rejection:
            return rejection.reason
        return ""

    async def send(self, method: Any, request: Any) -> None:
        """Send a command until its outcome is known; the connection gives it one request id."""
        request.request_id = str(uuid4())
        while True:
            with suppress(OutcomeUnknown):
                await self._connection.send(method, request)
                return


async def cut_connections(proxy: TcpProxy) -> None:
    while True:
        await asyncio.sleep(CUT_INTERVAL)
        await proxy.stop()
        await proxy.start()


async def prepare(stack: Stack) -> tuple[str, str]:
    """Schedule a show and open an account that can pay for every seat; return their ids."""
    show_id, account_id = uuid4().hex, uuid4().hex
    rows = [Row(label=f"R{number}", seats=25) for number in range(SEATS // 25)]
    price = Money(currency_code="EUR", units=PRICE)
    async with aio.connect(stack.settings.command_address, token=stack.token(*SCOPES)) as write:
        show = commands.ScheduleShowRequest(
            show_id=show_id,
            title="Hamlet",
            venue="Globe",
            place_id="london",
            doors=LocalTime(year=2999, month=7, day=1, hour=20, time_zone="Europe/Berlin"),
            sections=[Section(section_id="stalls", price=price, rows=rows)],
            seats_per_buyer=4,
        )
        await write.send(CommandServiceStub(write.channel).ScheduleShow, show)
        bank = BankingStub(write.channel)
        opening = banking.OpenAccountRequest(account_id=account_id, owner_id="ada", currency_code="EUR")
        await write.send(bank.OpenAccount, opening)
        half = Money(currency_code="EUR", units=PRICE * SEATS // 2)
        for _ in range(2):  # at once it would be large, and freeze the account
            deposit = banking.DepositRequest(account_id=account_id, amount=half, reference="pay")
            await write.send(bank.Deposit, deposit)
    return show_id, account_id


async def test_all_seats_are_sold_once_and_every_caller_has_an_answer(stack: Stack) -> None:
    show_id, account_id = await prepare(stack)
    port = int(stack.of(COMMAND_SERVER)[0].address.rpartition(":")[2])
    began = monotonic()
    async with (
        TcpProxy(port) as proxy,
        aio.connect(f"127.0.0.1:{proxy.port}", token=stack.token(*SCOPES)) as connection,
    ):
        rush = Rush(connection, show_id, account_id)
        cutting = asyncio.create_task(cut_connections(proxy))
        await asyncio.gather(*(rush.want(number) for number in range(CALLERS)))
        cutting.cancel()
    print(f"{CALLERS:,} callers in {monotonic() - began:.1f} s: {dict(rush.outcomes)}")
    assert rush.outcomes.total() == CALLERS
    assert set(rush.outcomes) <= {"OK", *SOLD_OUT}
    assert sum(rush.bought.values()) == SEATS
    caller = Caller(stack, *SCOPES)

    async def is_sold_out() -> bool:
        show = (await caller.query(queries.GetShowRequest(show_id=show_id))).show
        return {row.seats for row in show.sections[0].rows} == {"s" * 25}

    await until(is_sold_out, 120)

    async def is_paid() -> bool:
        request = banking_queries.GetAccountRequest(account_id=account_id)
        account = (await caller.query(request)).account
        return (account.balance.units, account.held.units) == (0, 0)

    await until(is_paid, 120)
    seats = Counter[str]()
    token, bookings = "", set[str]()
    while True:
        request = queries.ListTicketsRequest(show_id=show_id, page_size=100, page_token=token)
        page = await caller.query(request)
        bookings |= {booking.booking_id for booking in page.bookings}
        seats.update(f"{each.row}-{each.seat}" for booking in page.bookings for each in booking.tickets)
        token = page.next_page_token
        if not token:
            break
    await caller.close()
    assert bookings == set(rush.bought)
    assert (len(seats), set(seats.values())) == (SEATS, {1})
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
