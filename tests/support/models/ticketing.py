"""A model of ticketing for stateful tests, and a machine that compares the domain with it."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from command_server.contexts.ticketing.domain.allowance import MAX_OPEN_HOLDS, allowance_stream
from command_server.contexts.ticketing.domain.messages import (
    BuySeats,
    CancelShow,
    ExpireSeats,
    FailPurchase,
    IssueTickets,
    RefundTickets,
    ReleaseSeats,
    ReturnTickets,
    SeatRange,
    SettleShow,
)
from command_server.kernel.decider import Rejected
from tests.support.builders.theatre import FLOOR, STALLS, get_booking, get_show, hold, make_theatre

Seat = tuple[str, str, int]
"""Section, row and number; of a place of general admission a row `` and the number of the place."""
BUYERS, SEATS_PER_BUYER = ("ada", "bob", "cy"), 6
ROWS = {row.label: row.seats for row in STALLS.rows}
CAPACITIES = {"stalls": sum(ROWS.values()), "floor": FLOOR.capacity}
TAKEN = ("held", "paying", "sold")

ids, buyers, counts = st.integers(1, 6).map(str), st.sampled_from(BUYERS), st.integers(1, 4)
ranges = st.builds(SeatRange, st.sampled_from(("A", "B")), st.integers(1, 6), st.integers(1, 3))
named_seats = st.lists(ranges, min_size=1, max_size=2).map(tuple)


class TicketingMachine(RuleBasedStateMachine):
    """Executes random commands and keeps which booking has which seat."""

    def __init__(self) -> None:
        super().__init__()
        self.world = make_theatre()
        self.bookings: dict[str, dict[str, Any]] = {}
        self.cancelled = self.settled = False

    def execute(self, command: Any, allowed: bool) -> bool:
        """Execute a command and assert that it is rejected unless `allowed`; return `allowed`."""
        try:
            self.world.execute(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        return True

    def find_taken(self, states: Iterable[str] = TAKEN) -> dict[Seat, str]:
        """Return the seats in bookings of these states, each with its booking; no seat is in two."""
        taken: dict[Seat, str] = {}
        for id_, booking in self.bookings.items():
            if booking["state"] in states:
                assert not taken.keys() & booking["seats"], "a seat is in two bookings"
                taken |= dict.fromkeys(booking["seats"], id_)
        return taken

    def count_taken(self, section: str) -> int:
        active = (each for each in self.bookings.values() if each["state"] in TAKEN)
        return sum(each["count"] for each in active if each["section"] == section)

    def may_hold(self, buyer: str, count: int) -> bool:
        own = [each for each in self.bookings.values() if each["buyer"] == buyer]
        open_holds = sum(each["state"] in ("held", "paying") for each in own)
        seats = sum(each["count"] for each in own if each["state"] in TAKEN)
        within = open_holds < MAX_OPEN_HOLDS and seats + count <= SEATS_PER_BUYER
        return within and not self.cancelled

    def make(self, command: Any, possible: bool, named: bool = False) -> None:
        id_, deadline = command.booking_id, command.deadline
        request = (command.section_id, command.buyer_id, command.count, command.seats, deadline)
        before = self.bookings.get(id_)
        same = before is not None and before["request"] == request
        if self.execute(command, same or (before is None and possible)) and before is None:
            seats = get_booking(self.world, id_).seats
            assert not named or seats == command.seats
            self.bookings[id_] = {
                "request": request,
                "section": command.section_id,
                "buyer": command.buyer_id,
                "seats": _list_seats(command.section_id, seats),
                "count": sum(each.count for each in seats),
                "deadline": deadline,
                "state": "held",
            }

    @rule(id_=ids, buyer=buyers, count=counts, minutes=st.integers(1, 20))
    def hold_together(self, id_: str, buyer: str, count: int, minutes: int) -> None:
        taken = self.find_taken()
        fits = any(
            not taken.keys() & {("stalls", row, first + n) for n in range(count)}
            for row, size in ROWS.items()
            for first in range(1, size - count + 2)
        )
        deadline = self.world.now + timedelta(minutes=minutes)
        self.make(hold(id_, count, buyer=buyer, deadline=deadline), self.may_hold(buyer, count) and fits)

    @rule(id_=ids, buyer=buyers, seats=named_seats, minutes=st.integers(1, 20))
    def hold_named(self, id_: str, buyer: str, seats: tuple[SeatRange, ...], minutes: int) -> None:
        wanted = [seat for each in seats for seat in _list_seats("stalls", (each,))]
        exist = all(number <= ROWS[row] for _, row, number in wanted)
        free = not self.find_taken().keys() & set(wanted)
        possible = exist and free and len(set(wanted)) == len(wanted)
        deadline = self.world.now + timedelta(minutes=minutes)
        self.make(
            hold(id_, seats, buyer=buyer, deadline=deadline),
            possible and self.may_hold(buyer, len(wanted)),
            named=True,
        )

    @rule(id_=ids, buyer=buyers, count=counts)
    def hold_places(self, id_: str, buyer: str, count: int) -> None:
        fits = self.count_taken("floor") + count <= FLOOR.capacity
        deadline = self.world.now + timedelta(minutes=10)
        command = hold(id_, count, buyer=buyer, section="floor", deadline=deadline)
        self.make(command, self.may_hold(buyer, count) and fits)

    def get_state(self, id_: str) -> str:
        booking = self.bookings.get(id_)
        if booking is None:
            return "none"
        late = booking["state"] == "held" and booking["deadline"] <= self.world.now
        return "late" if late else str(booking["state"])

    def change(self, id_: str, command: Any, changes: Iterable[str], keeps: Iterable[str], to: str) -> None:
        """Execute a command that changes a booking in some states, and has no effect in others."""
        state = self.get_state(id_)
        if self.execute(command, state in (*changes, *keeps)) and state in changes:
            self.bookings[id_]["state"] = to

    @rule(id_=ids)
    def release(self, id_: str) -> None:
        self.change(id_, ReleaseSeats(id_, "enough"), ("held", "late"), ("released",), "released")

    @rule(id_=ids)
    def expire(self, id_: str) -> None:
        others = ("paying", "sold", "returned", "released")
        self.change(id_, ExpireSeats(id_), ("late",), others, "released")

    @rule(id_=ids)
    def buy(self, id_: str) -> None:
        self.change(id_, BuySeats(id_, "a-1"), ("held",), ("paying", "sold"), "paying")

    @rule(id_=ids)
    def fail(self, id_: str) -> None:
        self.change(id_, FailPurchase(id_, "no money"), ("paying",), ("released",), "released")

    @rule(id_=ids)
    def issue(self, id_: str) -> None:
        self.change(id_, IssueTickets(id_), () if self.cancelled else ("paying",), ("sold",), "sold")

    @rule(id_=ids)
    def return_tickets(self, id_: str) -> None:
        self.change(id_, ReturnTickets(id_, "ill"), ("sold",), ("returned",), "returned")

    @rule(id_=ids)
    def refund(self, id_: str) -> None:
        self.change(id_, RefundTickets(id_), ("sold",) if self.cancelled else (), ("returned",), "returned")

    @rule(chance=st.integers(0, 9))
    def cancel(self, chance: int) -> None:
        if chance == 0:  # most runs go on with the show
            self.execute(CancelShow("s-1", "rain"), allowed=True)
            self.cancelled = True

    @rule()
    def settle(self) -> None:
        if self.execute(SettleShow("s-1"), self.cancelled and (self.settled or not self.count_sold())):
            self.settled = True

    @rule(minutes=st.integers(1, 15))
    def wait(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    def count_sold(self) -> int:
        return sum(each["count"] for each in self.bookings.values() if each["state"] == "sold")

    @invariant()
    def seats_match_the_model(self) -> None:
        show, taken = get_show(self.world), self.find_taken()
        stalls, _ = show.sections
        for row, mask in zip(stalls.rows, stalls.taken, strict=True):
            expected = {number for _, label, number in taken if label == row.label}
            assert {number for number in range(1, 61) if mask >> (number - 1) & 1} == expected
        left = {each.section_id: each.capacity - each.available for each in show.sections}
        assert left == {name: self.count_taken(name) for name in CAPACITIES}
        assert show.sold == self.count_sold()

    @invariant()
    def allowances_match_the_model(self) -> None:
        for buyer in BUYERS:
            own = [each for each in self.bookings.values() if each["buyer"] == buyer]
            allowance = self.world.state(allowance_stream("s-1", buyer))
            open_holds = sum(each["state"] in ("held", "paying") for each in own)
            seats = sum(each["count"] for each in own if each["state"] in TAKEN)
            assert (allowance.open_holds, allowance.seats) == (open_holds, seats)

    def teardown(self) -> None:
        self.world.assert_snapshots_decode()


def _list_seats(section: str, seats: Iterable[SeatRange]) -> list[Seat]:
    """Return the numbered seats; places of general admission have none."""
    return [
        (section, each.row, number)
        for each in seats
        if each.row
        for number in range(each.first, each.first + each.count)
    ]
