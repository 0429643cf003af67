"""The demo's last part: a show, seats that are held once, tickets paid from accounts, and their refund."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.banking.v1.query_service_pb2_grpc import QueryServiceStub as BankingQueriesStub
from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import query_service_pb2 as queries
from diptych.ticketing.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ticketing.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ticketing.v1.types_pb2 import Booking, LocalTime, Row, SeatRange, Section, Show
from diptych_client import Rejection, aio
from google.type.money_pb2 import Money

from devstack.demo.narration import UnexpectedResult, check, print_line, print_step
from devstack.demo.polling import poll
from devstack.demo.requests import format_amount
from devstack.stack import Stack

SCOPES = (
    *("ticketing.write", "ticketing.buy", "ticketing.read", "ticketing.waiting", "banking.read"),
    *("ticketing.all", "banking.all"),
)
ROWS, PRICE = {"A": 8, "B": 6}, Money(currency_code="EUR", units=40)
ACCOUNT = "a-1"


class TicketingDemo:
    """Sells seats of a show, and cancels it.

    Args:
        stack: a stack with a process manager, and with the accounts of fulfilment's part.
    """

    def __init__(self, stack: Stack) -> None:
        token = stack.token(*SCOPES)
        self._write = aio.connect(stack.settings.command_address, token=token, tls=stack.credentials or False)
        self._read = aio.connect(stack.settings.query_address, token=token, tls=stack.credentials or False)
        self._commands: Any = CommandServiceStub(self._write.channel)
        self._queries: Any = QueryServiceStub(self._read.channel)
        self._accounts: Any = BankingQueriesStub(self._read.channel)
        self._show = f"hamlet-{uuid4().hex[:6]}"

    async def run(self) -> None:
        """Run all steps.

        Raises:
            UnexpectedResult, Rejection, OutcomeUnknown: a step had another result.
        """
        async with self._write, self._read:
            print_step("Schedule a show, and hold seats that are together")
            before = await self._read_balance()
            await self._schedule()
            ada = await self._hold("ada", 3)
            bob = await self._hold("bob", 3)
            await self._check_rows(["........", "hhhhhh"])
            print_step("Hold a seat that is taken")
            await self._expect_seats_taken()
            print_step("Buy them: one account can pay, the other cannot")
            await self._buy(ada, ACCOUNT, Booking.STATE_SOLD)
            await self._buy(bob, "b-1", Booking.STATE_RELEASED)
            await self._check_rows(["........", "sss..."])
            print_step("Cancel the show: the tickets are refunded")
            await self._send("CancelShow", show_id=self._show, reason="rain")
            await self._check_settled(before)

    async def _send(self, method: str, **fields: Any) -> Any:
        request = getattr(commands, f"{method}Request")(**fields)
        return await self._write.send(getattr(self._commands, method), request)

    async def _schedule(self) -> None:
        rows = [Row(label=label, seats=seats) for label, seats in ROWS.items()]
        doors = LocalTime(year=datetime.now(UTC).year + 1, month=7, day=1, hour=20, time_zone="Europe/London")
        section = Section(section_id="stalls", price=PRICE, rows=rows)
        await self._send(
            "ScheduleShow",
            show_id=self._show,
            title="Hamlet",
            venue="Globe",
            place_id="london",
            doors=doors,
            sections=[section],
            seats_per_buyer=4,
        )

    async def _hold(self, buyer: str, count: int, seats: Any = ()) -> str:
        booking_id = uuid4().hex
        deadline = datetime.now(UTC) + timedelta(minutes=10)
        await self._send(
            "HoldSeats",
            booking_id=booking_id,
            show_id=self._show,
            section_id="stalls",
            buyer_id=buyer,
            count=count,
            seats=seats,
            deadline=deadline,
        )
        return booking_id

    async def _check_rows(self, expected: list[str]) -> None:
        async def read_rows() -> list[str]:
            return [row.seats for row in (await self._read_show()).sections[0].rows]

        rows = await poll(read_rows, expected)
        for label, row in zip(ROWS, rows, strict=True):
            print_line(f"{label}  {row}")
        check(rows == expected, "h is held, s is sold", rows)

    async def _read_show(self) -> Show:
        request = queries.GetShowRequest(show_id=self._show)
        try:
            show: Show = (await self._read.query(self._queries.GetShow, request)).show
        except Rejection:  # not visible yet
            return Show(sections=[Show.SectionSeats()])
        return show

    async def _expect_seats_taken(self) -> None:
        try:
            booking = await self._hold("cyd", 0, [SeatRange(row="B", first=1, count=1)])
        except Rejection as rejection:
            check(rejection.reason == "SEATS_TAKEN", "rejected: SEATS_TAKEN", rejection)
        else:
            raise UnexpectedResult(f"the seat was held twice: {booking}")

    async def _buy(self, booking_id: str, account_id: str, expected: Booking.State.ValueType) -> None:
        bought = await self._send("BuySeats", booking_id=booking_id, account_id=account_id)
        request = queries.GetBookingRequest(booking_id=booking_id)
        await self._read.query(self._queries.GetBooking, request, fresh=bought)

        async def read_state() -> Booking.State.ValueType:
            booking = (await self._read.query(self._queries.GetBooking, request)).booking
            state: Booking.State.ValueType = booking.state
            return state

        state = await poll(read_state, expected)
        booking = (await self._read.query(self._queries.GetBooking, request)).booking
        tickets = ", ".join(f"{ticket.row}{ticket.seat}" for ticket in booking.tickets)
        name = Booking.State.Name(expected).removeprefix("STATE_")
        check(state == expected, f"{account_id}: {name} {tickets or booking.end_reason}", booking)

    async def _read_balance(self) -> str:
        request = banking_queries.GetAccountRequest(account_id=ACCOUNT)
        account = (await self._read.query(self._accounts.GetAccount, request)).account
        return f"{format_amount(account.balance)} and {format_amount(account.held)} held"

    async def _check_settled(self, expected: str) -> None:
        async def read_state() -> Show.State.ValueType:
            return (await self._read_show()).state

        state = await poll(read_state, Show.STATE_SETTLED)
        check(state == Show.STATE_SETTLED, "no ticket is left", state)
        balance = await poll(self._read_balance, expected)
        check(balance == expected, f"{ACCOUNT} has {expected}, as before", balance)
