"""The booking aggregate: seats that a buyer holds, pays for, and has tickets of.

Held seats are released at a deadline. A purchase removes it: the purchase ends with tickets or with a
release. Tickets can be returned until the doors open, and are taken back if the show is cancelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from command_server.contexts.ticketing.domain import allowance as allowances
from command_server.contexts.ticketing.domain import show as shows
from command_server.contexts.ticketing.domain.allowance import (
    ALLOWANCE,
    Allowance,
    allowance_stream,
    make_allowance_id,
)
from command_server.contexts.ticketing.domain.messages import (
    AllowanceChanged,
    BookingExpired,
    BookingMade,
    BookingReleased,
    BuySeats,
    ExpireSeats,
    FailPurchase,
    HoldSeats,
    IssueTickets,
    PurchaseRequested,
    RefundTickets,
    ReleaseSeats,
    ReturnTickets,
    SeatRange,
    SeatsHeld,
    SeatsReleased,
    SeatsReturned,
    SeatsSold,
    TicketsIssued,
    TicketsReturned,
)
from command_server.contexts.ticketing.domain.seating import find_together, to_mask
from command_server.contexts.ticketing.domain.show import SHOW, SectionState, Show, find_row
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

MAX_DURATION = timedelta(hours=1)
"""Maximum time from a hold to its deadline."""
SHOW_CANCELLED = "the show is cancelled"

Command = (
    HoldSeats
    | ReleaseSeats
    | ExpireSeats
    | BuySeats
    | FailPurchase
    | IssueTickets
    | ReturnTickets
    | RefundTickets
)
Event = BookingMade | PurchaseRequested | TicketsIssued | TicketsReturned | BookingReleased | BookingExpired
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a booking; NONE before it is made, RELEASED also after it expired."""

    NONE = "NONE"
    HELD = "HELD"
    PAYING = "PAYING"
    SOLD = "SOLD"
    RETURNED = "RETURNED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Booking:
    """The state of a booking, as far as the rules need it."""

    status: Status = Status.NONE
    show_id: str = ""
    section_id: str = ""
    buyer_id: str = ""
    seats: tuple[SeatRange, ...] = ()
    named: bool = False
    total: Money = Money("", 0)  # noqa: RUF009 - frozen
    deadline: datetime | None = None
    account_id: str = ""

    @property
    def count(self) -> int:
        """The number of seats."""
        return sum(each.count for each in self.seats)

    def is_expired(self, now: datetime) -> bool:
        """Return whether the deadline of held seats has passed."""
        return self.status is Status.HELD and self.deadline is not None and self.deadline <= now


def evolve(booking: Booking, event: Event) -> Booking:
    match event:
        case BookingMade():
            return Booking(
                Status.HELD,
                event.show_id,
                event.section_id,
                event.buyer_id,
                event.seats,
                event.named,
                event.total,
                event.deadline,
            )
        case PurchaseRequested():
            return replace(booking, status=Status.PAYING, account_id=event.account_id)
        case TicketsIssued():
            return replace(booking, status=Status.SOLD)
        case TicketsReturned():
            return replace(booking, status=Status.RETURNED)
        case BookingReleased() | BookingExpired():
            return replace(booking, status=Status.RELEASED)


BOOKING = Aggregate("ticketing.booking", Booking(), evolve, members(Event), owner="buyer_id")

SOURCE_STATUSES = {
    ReleaseSeats: Status.HELD,
    ExpireSeats: Status.HELD,
    FailPurchase: Status.PAYING,
    IssueTickets: Status.PAYING,
    ReturnTickets: Status.SOLD,
    RefundTickets: Status.SOLD,
}
"""The status in which each command that changes seats has an effect."""
TARGET_STATUSES = {
    ReleaseSeats: Status.RELEASED,
    FailPurchase: Status.RELEASED,
    IssueTickets: Status.SOLD,
    ReturnTickets: Status.RETURNED,
    RefundTickets: Status.RETURNED,
}
"""The status that each command leads to. A command whose target status is reached already has no effect."""


def streams(command: Command) -> Sequence[str]:
    """HoldSeats also changes the show and the buyer's allowance, which the command names."""
    name = BOOKING.stream(command.booking_id)
    if not isinstance(command, HoldSeats):
        return (name,)
    return name, SHOW.stream(command.show_id), allowance_stream(command.show_id, command.buyer_id)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """Commands that sell or free seats also change the show and the allowance, which the booking names."""
    booking: Booking = states[BOOKING.stream(command.booking_id)]
    if type(command) not in SOURCE_STATUSES or booking.status is not SOURCE_STATUSES[type(command)]:
        return ()
    return SHOW.stream(booking.show_id), allowance_stream(booking.show_id, booking.buyer_id)


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.booking_id
    name = BOOKING.stream(id_)
    booking: Booking = states[name]
    expired = booking.is_expired(now)
    match command, booking.status:
        case HoldSeats(), Status.NONE:
            return hold(command, states, now)
        case HoldSeats(), _:
            if is_same(command, booking):
                return {}
            raise AlreadyExists("BOOKING_EXISTS", booking_id=id_)
        case _, Status.NONE:
            raise NotFound("BOOKING_NOT_FOUND", booking_id=id_)
        case BuySeats(), Status.HELD if expired:
            raise Rejected("BOOKING_EXPIRED", booking_id=id_, deadline=booking.deadline)
        case BuySeats(_, account_id), Status.HELD:
            buyer = (booking.show_id, booking.buyer_id)
            return {name: [PurchaseRequested(id_, *buyer, account_id, booking.total, requested_at=now)]}
        case BuySeats(_, account_id), Status.PAYING | Status.SOLD if account_id == booking.account_id:
            return {}
        case ExpireSeats(), Status.HELD if not expired:
            raise Rejected("HOLD_NOT_EXPIRED", booking_id=id_, deadline=booking.deadline)
        case ExpireSeats(), Status.HELD:
            return {name: [BookingExpired(id_, expired_at=now)], **release(id_, booking, states, now)}
        case ExpireSeats(), _:
            return {}
        case (ReleaseSeats(_, reason), Status.HELD) | (FailPurchase(_, reason), Status.PAYING):
            released = BookingReleased(id_, reason, released_at=now)
            return {name: [released], **release(id_, booking, states, now)}
        case IssueTickets(), Status.PAYING:
            return {name: [TicketsIssued(id_, issued_at=now)], **sell(id_, booking, states, now)}
        case ((ReturnTickets() | RefundTickets()), Status.SOLD):
            return take_back(command, booking, states, now)
        case _, status if status is TARGET_STATUSES.get(type(command)):
            return {}
    raise Rejected(f"BOOKING_ALREADY_{booking.status.name}", booking_id=id_)


def is_same(command: HoldSeats, booking: Booking) -> bool:
    """Return whether a command repeats the one that made the booking."""
    names = (command.show_id, command.section_id, command.buyer_id, command.deadline)
    if names != (booking.show_id, booking.section_id, booking.buyer_id, booking.deadline):
        return False
    if booking.named:
        return command.seats == booking.seats and not command.count
    return command.count == booking.count and not command.seats


def hold(command: HoldSeats, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a new booking by stream.

    Raises:
        NotFound: the show does not exist.
        Rejected: the show sells nothing, the deadline or the seats are invalid or taken, or the buyer has as
            much of the show as one buyer may.
    """
    name, show_name, allowance_name = states
    show: Show = states[show_name]
    allowance: Allowance = states[allowance_name]
    check_sells(show, command.show_id, now)
    if not now < command.deadline <= now + MAX_DURATION:
        raise Rejected("HOLD_DEADLINE_INVALID", deadline=command.deadline, most=now + MAX_DURATION)
    section = show.find_section(command.section_id)
    if section is None:
        raise Rejected("SECTION_UNKNOWN", section_id=command.section_id)
    if bool(command.count) == bool(command.seats):
        raise Rejected("SEATS_INVALID", rule="either a number of seats, or seats")
    count = command.count or sum(each.count for each in command.seats)
    allowances.check(allowance, count, show.seats_per_buyer)
    if section.waiting_list_id:
        raise Rejected("SEATS_AWAITED", section_id=section.section_id)
    seats = choose(section, command)
    made = BookingMade(
        command.booking_id,
        command.show_id,
        command.section_id,
        command.buyer_id,
        seats,
        bool(command.seats),
        section.price * count,
        command.deadline,
        made_at=now,
    )
    held, changed = claim(made, section, allowance, now)
    return {name: [made], show_name: [held], allowance_name: [changed]}


def claim(
    made: BookingMade, section: SectionState, allowance: Allowance, now: datetime
) -> tuple[SeatsHeld, AllowanceChanged]:
    """Return the events of the show and of the allowance that belong to a new booking."""
    id_, show_id, count = made.booking_id, made.show_id, sum(each.count for each in made.seats)
    available = section.available - count
    held = SeatsHeld(show_id, id_, made.section_id, made.seats, count, available, held_at=now)
    buyer = (show_id, made.buyer_id)
    return held, change_allowance(allowance, *buyer, id_, holds=1, seats=count, now=now)


def check_sells(show: Show, show_id: str, now: datetime) -> None:
    """Raise NotFound or Rejected if no seats of a show can be held."""
    if show.status is shows.Status.NONE:
        raise NotFound("SHOW_NOT_FOUND", show_id=show_id)
    if show.status is not shows.Status.SCHEDULED:
        raise Rejected("SHOW_CANCELLED", show_id=show_id)
    if show.has_begun(now):
        raise Rejected("SHOW_HAS_BEGUN", show_id=show_id, doors_at=show.doors_at)


def choose(section: SectionState, command: HoldSeats) -> tuple[SeatRange, ...]:
    """Return the seats that a command holds.

    Raises:
        Rejected: they do not exist, are not free, or are not together.
    """
    if command.seats:
        check_named(section, command.seats)
        return command.seats
    return choose_together(section, command.count)


def choose_together(section: SectionState, count: int) -> tuple[SeatRange, ...]:
    """Return free seats that are together.

    Raises:
        Rejected: there are none.
    """
    if count > section.available:
        raise Rejected("SEATS_TAKEN", section_id=section.section_id, available=section.available)
    if not section.rows:
        return (SeatRange("", 0, count),)
    found = find_together(section.rows, section.taken, count)
    if found is None:
        raise Rejected("SEATS_NOT_TOGETHER", section_id=section.section_id, available=section.available)
    return (found,)


def check_named(section: SectionState, seats: Sequence[SeatRange]) -> None:
    """Raise Rejected unless the section has all these seats, each named once, and all are free."""
    named: dict[int, int] = {}
    for each in seats:
        row, last = find_row(section, each.row), each.first + each.count - 1
        if row < 0 or each.first < 1 or last > section.rows[row].seats:
            raise Rejected("SEAT_UNKNOWN", section_id=section.section_id, row=each.row, seat=last)
        mask = to_mask(each.first, each.count)
        if mask & named.get(row, 0):
            raise Rejected("SEAT_REPEATED", section_id=section.section_id, row=each.row)
        named[row] = named.get(row, 0) | mask
        if mask & section.taken[row]:
            raise Rejected("SEATS_TAKEN", section_id=section.section_id, row=each.row)


def change_allowance(
    allowance: Allowance,
    show_id: str,
    buyer_id: str,
    booking_id: str,
    *,
    holds: int,
    seats: int,
    now: datetime,
) -> AllowanceChanged:
    """Return the event that adds to an allowance."""
    id_ = make_allowance_id(show_id, buyer_id)
    levels = (allowance.open_holds + holds, allowance.seats + seats)
    return AllowanceChanged(id_, show_id, buyer_id, booking_id, *levels, changed_at=now)


def release(booking_id: str, booking: Booking, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events that free held seats, by stream."""
    _, show_name, allowance_name = states
    show: Show = states[show_name]
    seats = (booking.show_id, booking_id, booking.section_id, booking.seats, booking.count)
    available, waiting_list_id = free(show, booking)
    released = SeatsReleased(*seats, available, released_at=now, waiting_list_id=waiting_list_id)
    buyer = (booking.show_id, booking.buyer_id)
    changed = change_allowance(
        states[allowance_name], *buyer, booking_id, holds=-1, seats=-booking.count, now=now
    )
    return {show_name: [released], allowance_name: [changed]}


def free(show: Show, booking: Booking) -> tuple[int, str]:
    """Return the number of available seats of a section once a booking's are free, and who waits for them."""
    section = show.find_section(booking.section_id)
    return (booking.count + section.available, section.waiting_list_id) if section else (booking.count, "")


def sell(booking_id: str, booking: Booking, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events that sell held seats, by stream.

    Raises:
        Rejected: the show is cancelled.
    """
    _, show_name, allowance_name = states
    show: Show = states[show_name]
    if show.status is not shows.Status.SCHEDULED:
        raise Rejected("SHOW_CANCELLED", show_id=booking.show_id)
    seats = (booking.show_id, booking_id, booking.section_id, booking.seats, booking.count)
    sold = SeatsSold(*seats, show.sold + booking.count, sold_at=now)
    buyer = (booking.show_id, booking.buyer_id)
    changed = change_allowance(states[allowance_name], *buyer, booking_id, holds=-1, seats=0, now=now)
    return {show_name: [sold], allowance_name: [changed]}


def take_back(
    command: ReturnTickets | RefundTickets, booking: Booking, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the events that free sold seats, by stream.

    Raises:
        Rejected: the doors are open, or the show is not cancelled.
    """
    name, show_name, allowance_name = states
    show: Show = states[show_name]
    cancelled = show.status is not shows.Status.SCHEDULED
    if isinstance(command, RefundTickets) and not cancelled:
        raise Rejected("SHOW_NOT_CANCELLED", show_id=booking.show_id)
    if not cancelled and show.has_begun(now):
        raise Rejected("SHOW_HAS_BEGUN", show_id=booking.show_id, doors_at=show.doors_at)
    id_ = command.booking_id
    reason = command.reason if isinstance(command, ReturnTickets) else SHOW_CANCELLED
    seats = (booking.show_id, id_, booking.section_id, booking.seats, booking.count)
    available, waiting_list_id = free(show, booking)
    levels = available, show.sold - booking.count
    buyer = (booking.show_id, booking.buyer_id)
    return {
        name: [TicketsReturned(id_, reason, returned_at=now)],
        show_name: [SeatsReturned(*seats, *levels, returned_at=now, waiting_list_id=waiting_list_id)],
        allowance_name: [
            change_allowance(states[allowance_name], *buyer, id_, holds=0, seats=-booking.count, now=now)
        ],
    }


DECIDER = Decider(
    members(Command), (BOOKING, SHOW, ALLOWANCE), "booking_id", streams, decide, related_streams
)
