"""A model of ticketing for stateful tests, and a machine that compares the domain with it."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_server.contexts.ticketing.domain.allowance import MAX_OPEN_HOLDS, allowance_stream
from command_server.contexts.ticketing.domain.messages import (
    BuySeats,
    CancelShow,
    ExpireSeats,
    FailPurchase,
    IssueTickets,
    LeaveWaitingList,
    OfferSeats,
    RefundTickets,
    ReleaseSeats,
    ReturnTickets,
    SeatRange,
    SettleShow,
)
from command_server.contexts.ticketing.domain.waiting_list import OFFER_DURATION, waiting_list_stream
from command_server.kernel.decider import Rejected
from tests.support.builders.theatre import FLOOR, STALLS, get_booking, get_show, hold, join, make_theatre

Seat = tuple[str, str, int]
"""Section, row and number; of a place of general admission a row `` and the number of the place."""
BUYERS, SEATS_PER_BUYER = ("ada", "bob", "cy"), 6
ROWS = {row.label: row.seats for row in STALLS.rows}
CAPACITIES = {"stalls": sum(ROWS.values()), "floor": FLOOR.capacity}
TAKEN = ("held", "paying", "sold")

numbers, buyers, counts = st.integers(0, 11), st.sampled_from(BUYERS), st.integers(1, 4)
ranges = st.builds(SeatRange, st.sampled_from(("A", "B")), st.integers(1, 6), st.integers(1, 3))
named_seats = st.lists(ranges, min_size=1, max_size=2).map(tuple)


class TicketingMachine(RuleBasedStateMachine):
    """Executes random commands and keeps which booking has which seat."""

    def __init__(self) -> None:
        super().__init__()
        self.world = make_theatre()
        self.bookings: dict[str, dict[str, Any]] = {}
        self.waiting: list[tuple[str, str, int]] = []
        """The bookings, buyers and numbers of seats of those who wait for seats of the stalls."""
        self.cancelled = self.settled = False

    @initialize(sold_out=st.booleans())
    def begin(self, sold_out: bool) -> None:
        """Begin with seats that are all free or, so that buyers wait, all held."""
        for buyer, label in (("ada", "A"), ("bob", "B")) if sold_out else ():
            deadline = self.world.now + timedelta(minutes=10)
            seats = (SeatRange(label, 1, ROWS[label]),)
            self.make(hold(label, seats, buyer=buyer, deadline=deadline), possible=True, named=True)

    def choose(self, number: int, *states: str) -> str:
        """Return a booking, mostly one in these states."""
        suitable = [id_ for id_ in self.bookings if self.get_state(id_) in states]
        return suitable[number % len(suitable)] if suitable and number > 1 else str(number)

    def choose_new(self, number: int) -> str:
        """Return the id of a booking, mostly one that was not made."""
        return str(len(self.bookings) + number) if number > 1 else str(number)

    def choose_waiting(self, number: int) -> str:
        return self.waiting[number % len(self.waiting)][0] if self.waiting and number > 9 else str(number)

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
            assert not named or get_booking(self.world, id_).seats == command.seats
            self.add_booking(id_, request, command.section_id, command.buyer_id, deadline)

    def add_booking(self, id_: str, request: Any, section: str, buyer: str, deadline: Any) -> None:
        seats = get_booking(self.world, id_).seats
        self.bookings[id_] = {
            "request": request,
            "section": section,
            "buyer": buyer,
            "seats": _list_seats(section, seats),
            "count": sum(each.count for each in seats),
            "deadline": deadline,
            "state": "held",
        }

    @rule(number=numbers, buyer=buyers, count=counts)
    def join(self, number: int, buyer: str, count: int) -> None:
        id_ = self.choose_new(number)
        same = (id_, buyer, count) in self.waiting
        sold_out = self.count_taken("stalls") == CAPACITIES["stalls"]
        others = {booking for booking, _, _ in self.waiting} | {buyer for _, buyer, _ in self.waiting}
        possible = (self.waiting or sold_out) and not others & {id_, buyer} and not self.cancelled
        if self.execute(join(id_, count, buyer=buyer), bool(same or possible)) and not same:
            self.waiting.append((id_, buyer, count))

    @rule(number=numbers)
    def leave(self, number: int) -> None:
        id_ = self.choose_waiting(number)
        self.execute(LeaveWaitingList("s-1", "stalls", id_), allowed=True)
        self.waiting = [entry for entry in self.waiting if entry[0] != id_]

    @rule()
    def offer(self) -> None:
        """Offer seats to who is next, or remove one who cannot be offered any."""
        id_, buyer, count = self.waiting[0] if self.waiting else ("", "", 0)
        usable = id_ not in self.bookings and self.may_hold(buyer, count)
        allowed = bool(id_) and not self.cancelled and (not usable or self.fits_together(count))
        if self.execute(OfferSeats("s-1", "stalls"), allowed):
            del self.waiting[0]
            if usable:
                deadline = self.world.now + OFFER_DURATION
                request = ("stalls", buyer, count, (), deadline)
                self.add_booking(id_, request, "stalls", buyer, deadline)

    @rule(number=numbers, buyer=buyers)
    def fill(self, number: int, buyer: str) -> None:
        """Name all that is free of a row, so that shows sell out."""
        id_ = self.choose_new(number)
        for label, size in ROWS.items():
            free = [
                number for number in range(1, size + 1) if ("stalls", label, number) not in self.find_taken()
            ]
            if free and id_ not in self.bookings and self.may_hold(buyer, len(free)) and not self.waiting:
                seats = tuple(SeatRange(label, number, 1) for number in free)
                deadline = self.world.now + timedelta(minutes=10)
                self.make(hold(id_, seats, buyer=buyer, deadline=deadline), possible=True, named=True)

    def fits_together(self, count: int) -> bool:
        taken = self.find_taken()
        return any(
            not taken.keys() & {("stalls", row, first + n) for n in range(count)}
            for row, size in ROWS.items()
            for first in range(1, size - count + 2)
        )

    @rule(number=numbers, buyer=buyers, count=counts, minutes=st.integers(1, 20))
    def hold_together(self, number: int, buyer: str, count: int, minutes: int) -> None:
        id_ = self.choose_new(number)
        fits = self.fits_together(count)
        deadline = self.world.now + timedelta(minutes=minutes)
        possible = self.may_hold(buyer, count) and fits and not self.waiting
        self.make(hold(id_, count, buyer=buyer, deadline=deadline), possible)

    @rule(number=numbers, buyer=buyers, seats=named_seats, minutes=st.integers(1, 20))
    def hold_named(self, number: int, buyer: str, seats: tuple[SeatRange, ...], minutes: int) -> None:
        id_ = self.choose_new(number)
        wanted = [seat for each in seats for seat in _list_seats("stalls", (each,))]
        exist = all(number <= ROWS[row] for _, row, number in wanted)
        free = not self.find_taken().keys() & set(wanted)
        possible = exist and free and len(set(wanted)) == len(wanted)
        deadline = self.world.now + timedelta(minutes=minutes)
        self.make(
            hold(id_, seats, buyer=buyer, deadline=deadline),
            possible and self.may_hold(buyer, len(wanted)) and not self.waiting,
            named=True,
        )

    @rule(number=numbers, buyer=buyers, count=counts)
    def hold_places(self, number: int, buyer: str, count: int) -> None:
        id_ = self.choose_new(number)
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

    @rule(number=numbers)
    def release(self, number: int) -> None:
        id_ = self.choose(number, "held", "late")
        self.change(id_, ReleaseSeats(id_, "enough"), ("held", "late"), ("released",), "released")

    @rule(number=numbers)
    def expire(self, number: int) -> None:
        id_ = self.choose(number, "late", "held")
        others = ("paying", "sold", "returned", "released")
        self.change(id_, ExpireSeats(id_), ("late",), others, "released")

    @rule(number=numbers)
    def buy(self, number: int) -> None:
        id_ = self.choose(number, "held")
        self.change(id_, BuySeats(id_, "a-1"), ("held",), ("paying", "sold"), "paying")

    @rule(number=numbers)
    def fail(self, number: int) -> None:
        id_ = self.choose(number, "paying")
        self.change(id_, FailPurchase(id_, "no money"), ("paying",), ("released",), "released")

    @rule(number=numbers)
    def issue(self, number: int) -> None:
        id_ = self.choose(number, "paying")
        self.change(id_, IssueTickets(id_), () if self.cancelled else ("paying",), ("sold",), "sold")

    @rule(number=numbers)
    def return_tickets(self, number: int) -> None:
        id_ = self.choose(number, "sold")
        self.change(id_, ReturnTickets(id_, "ill"), ("sold",), ("returned",), "returned")

    @rule(number=numbers)
    def refund(self, number: int) -> None:
        id_ = self.choose(number, "sold")
        self.change(id_, RefundTickets(id_), ("sold",) if self.cancelled else (), ("returned",), "returned")

    @rule(chance=st.integers(0, 40))
    def cancel(self, chance: int) -> None:
        if chance == 40:  # most runs go on with the show
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
        entries = self.world.state(waiting_list_stream("s-1", "stalls")).entries
        assert [(each.booking_id, each.buyer_id, each.count) for each in entries] == self.waiting
        assert bool(stalls.waiting_list_id) == bool(self.waiting)

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
