"""The waiting list aggregate: the buyers who wait for seats of one section, in the order of their entries.

While anybody waits, seats that become free are theirs: HoldSeats is refused. Who is next is offered them as a
booking with a deadline; a saga sends OfferSeats whenever seats are freed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.ticketing.domain import allowance as allowances
from command_server.contexts.ticketing.domain.allowance import ALLOWANCE, allowance_stream
from command_server.contexts.ticketing.domain.booking import (
    BOOKING,
    Booking,
    Status,
    check_sells,
    choose_together,
    claim,
)
from command_server.contexts.ticketing.domain.messages import (
    BookingMade,
    JoinWaitingList,
    LeaveWaitingList,
    OfferSeats,
    SeatsOffered,
    WaitingBegan,
    WaitingEnded,
    WaitingListJoined,
    WaitingListLeft,
)
from command_server.contexts.ticketing.domain.show import SHOW, SectionState, Show
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, Rejected, members
from command_server.kernel.field_rules import check_fields

WAITING_LIST_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e52")
"""UUID namespace of the ids of waiting lists, which are derived from show and section."""
MAX_ENTRIES = 500
"""Maximum number of buyers who wait for seats of a section; the state and the view grow with them."""
OFFER_DURATION = timedelta(minutes=10)
"""Time from an offer to its deadline."""
LEFT = "the buyer has left"

Command = JoinWaitingList | LeaveWaitingList | OfferSeats
Event = WaitingListJoined | WaitingListLeft | SeatsOffered
EventsByStream = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A buyer who waits, and the booking that an offer makes."""

    booking_id: str
    buyer_id: str
    count: int


@dataclass(frozen=True, slots=True)
class WaitingList:
    """The state of a waiting list: its entries, the next one first."""

    entries: tuple[Entry, ...] = ()

    def find(self, booking_id: str) -> Entry | None:
        for entry in self.entries:
            if entry.booking_id == booking_id:
                return entry
        return None


def evolve(waiting_list: WaitingList, event: Event) -> WaitingList:
    match event:
        case WaitingListJoined():
            entry = Entry(event.booking_id, event.buyer_id, event.count)
            return replace(waiting_list, entries=(*waiting_list.entries, entry))
        case WaitingListLeft() | SeatsOffered():
            others = tuple(each for each in waiting_list.entries if each.booking_id != event.booking_id)
            return replace(waiting_list, entries=others)


WAITING_LIST = Aggregate("ticketing.waiting_list", WaitingList(), evolve, members(Event))


def make_waiting_list_id(show_id: str, section_id: str) -> str:
    return str(uuid5(WAITING_LIST_IDS, f"{show_id}\n{section_id}"))


def waiting_list_stream(show_id: str, section_id: str) -> str:
    return WAITING_LIST.stream(make_waiting_list_id(show_id, section_id))


def streams(command: Command) -> Sequence[str]:
    return waiting_list_stream(command.show_id, command.section_id), SHOW.stream(command.show_id)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """OfferSeats also changes booking and allowance of who is next, whom only the list's state names."""
    waiting_list: WaitingList = states[waiting_list_stream(command.show_id, command.section_id)]
    if not isinstance(command, OfferSeats) or not waiting_list.entries:
        return ()
    following = waiting_list.entries[0]
    return BOOKING.stream(following.booking_id), allowance_stream(command.show_id, following.buyer_id)


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    name, show_name = streams(command)
    waiting_list: WaitingList = states[name]
    show: Show = states[show_name]
    match command:
        case JoinWaitingList():
            return join(command, waiting_list, show, now)
        case LeaveWaitingList(booking_id=booking_id):
            entry = waiting_list.find(booking_id)
            if entry is None or command.buyer_id not in ("", entry.buyer_id):
                return {}
            return leave(command, waiting_list, entry, LEFT, now)
        case OfferSeats():
            return offer(command, states, now)


def join(command: JoinWaitingList, waiting_list: WaitingList, show: Show, now: datetime) -> EventsByStream:
    """Return the events of a new entry by stream, or none if there is the same.

    Raises:
        NotFound: the show does not exist.
        AlreadyExists: there is another entry for the booking.
        Rejected: the show sells nothing, the section has free seats, or the buyer or the list has too much.
    """
    entry = Entry(command.booking_id, command.buyer_id, command.count)
    if (existing := waiting_list.find(command.booking_id)) is not None:
        if existing == entry:
            return {}
        raise AlreadyExists("WAITING_EXISTS", booking_id=command.booking_id)
    check_sells(show, command.show_id, now)
    section = find_section(show, command.section_id)
    if any(each.buyer_id == command.buyer_id for each in waiting_list.entries):
        raise Rejected("WAITING_ALREADY", buyer_id=command.buyer_id)
    if command.count > show.seats_per_buyer:
        raise Rejected("SEATS_TOO_MANY", most=show.seats_per_buyer, has=0)
    if not waiting_list.entries and section.available:
        raise Rejected("SEATS_AVAILABLE", section_id=section.section_id, available=section.available)
    if len(waiting_list.entries) >= MAX_ENTRIES:
        raise Rejected("WAITING_LIST_FULL", most=MAX_ENTRIES)
    name, show_name = streams(command)
    place = (command.show_id, command.section_id)
    id_ = make_waiting_list_id(*place)
    joined = WaitingListJoined(id_, *place, entry.booking_id, entry.buyer_id, entry.count, joined_at=now)
    began = [] if waiting_list.entries else [WaitingBegan(*place, id_, began_at=now)]
    return {name: [joined], show_name: began}


def find_section(show: Show, section_id: str) -> SectionState:
    """Return a section of a show.

    Raises:
        Rejected: it has no such section.
    """
    section = show.find_section(section_id)
    if section is None:
        raise Rejected("SECTION_UNKNOWN", section_id=section_id)
    return section


def leave(
    command: LeaveWaitingList | OfferSeats,
    waiting_list: WaitingList,
    entry: Entry,
    reason: str,
    now: datetime,
) -> EventsByStream:
    """Return the events that remove an entry without an offer, by stream."""
    name, show_name = streams(command)
    place = (command.show_id, command.section_id)
    left = WaitingListLeft(make_waiting_list_id(*place), *place, entry.booking_id, reason, left_at=now)
    return {name: [left], show_name: end_waiting(command, waiting_list, now)}


def end_waiting(
    command: LeaveWaitingList | OfferSeats, waiting_list: WaitingList, now: datetime
) -> Sequence[WaitingEnded]:
    """Return the show's event if the last entry is removed."""
    if len(waiting_list.entries) > 1:
        return []
    return [WaitingEnded(command.show_id, command.section_id, ended_at=now)]


def offer(command: OfferSeats, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of an offer to who is next, or of the removal of an entry that cannot be offered any.

    Raises:
        Rejected: nobody waits, the show sells nothing, or it has no such seats now.
    """
    name, show_name, *others = states
    waiting_list: WaitingList = states[name]
    show: Show = states[show_name]
    if not others:
        raise Rejected("WAITING_LIST_EMPTY", show_id=command.show_id, section_id=command.section_id)
    booking_name, allowance_name = others
    booking: Booking = states[booking_name]
    allowance = states[allowance_name]
    entry = waiting_list.entries[0]
    check_sells(show, command.show_id, now)
    if booking.status is not Status.NONE:
        return leave(command, waiting_list, entry, "BOOKING_EXISTS", now)
    try:
        allowances.check(allowance, entry.count, show.seats_per_buyer)
    except Rejected as rejected:
        return leave(command, waiting_list, entry, rejected.reason, now)
    section = find_section(show, command.section_id)
    seats = choose_together(section, entry.count)
    made = BookingMade(
        entry.booking_id,
        command.show_id,
        command.section_id,
        entry.buyer_id,
        seats,
        named=False,
        total=section.price * entry.count,
        deadline=now + OFFER_DURATION,
        made_at=now,
    )
    held, changed = claim(made, section, allowance, now)
    list_id = make_waiting_list_id(command.show_id, command.section_id)
    return {
        name: [SeatsOffered(list_id, entry.booking_id, offered_at=now)],
        show_name: [held, *end_waiting(command, waiting_list, now)],
        booking_name: [made],
        allowance_name: [changed],
    }


DECIDER = Decider(
    members(Command), (WAITING_LIST, SHOW, BOOKING, ALLOWANCE), "show_id", streams, decide, related_streams
)
