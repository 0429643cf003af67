"""The independent folds of ticketing.

Seats are sets of (section, row, number) here, where rules keep bits and the projector keeps text. Numbers of
seats are sums over events, compared with the levels that events carry.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from diptych.ticketing.v1 import events_pb2
from diptych.ticketing.v1 import types_pb2 as types

from contracts.events.ticketing import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import find_last, get_first, iterate
from operations.verify.formats import (
    columns,
    encode_money,
    encode_time,
    has_end_time,
    list_ended,
    list_entries,
)
from operations.verify.model import Aggregate, Event, ProjectionSpec, SagaSpec

SHOW, AVAILABILITY, BOOKING = View.of(types.Show), View.of(types.Availability), View.of(types.Booking)
WAITING_LIST = View.of(types.WaitingList)
Seat = tuple[str, str, int]
"""Section id, row label and number."""
MOVES: dict[Any, tuple[str, str]] = {
    events_pb2.SeatsHeld: ("free", "held"),
    events_pb2.SeatsReleased: ("held", "free"),
    events_pb2.SeatsSold: ("held", "sold"),
    events_pb2.SeatsReturned: ("sold", "free"),
}
"""Event to the states of its seats before and after it."""


def _list_seats(section_id: str, seats: Iterable[Any]) -> Iterator[Seat]:
    for each in seats:
        if each.row:
            for number in range(each.first, each.first + each.count):
                yield section_id, each.row, number


class Seats:
    """Where all seats of a show are after its events."""

    def __init__(self, events: Sequence[Event]) -> None:
        first = get_first(events, events_pb2.ShowScheduled)
        self.sections = {section.section_id: section for section in first.sections}
        self.counts = {
            id_: {"free": _count(section), "held": 0, "sold": 0} for id_, section in self.sections.items()
        }
        self.states: dict[Seat, str] = {
            (id_, row.label, number): "free"
            for id_, section in self.sections.items()
            for row in section.rows
            for number in range(1, row.seats + 1)
        }
        for message in iterate(events, *MOVES):
            self._move(message, *MOVES[type(message)])

    @property
    def sold(self) -> int:
        return sum(counts["sold"] for counts in self.counts.values())

    def _move(self, message: Any, before: str, after: str) -> None:
        """Move the seats of an event.

        Raises:
            ValueError: they were elsewhere, or the event's numbers do not follow from the events before.
        """
        id_, counts, name = message.section_id, self.counts[message.section_id], message.DESCRIPTOR.name
        seats = list(_list_seats(id_, message.seats))
        if any(self.states.get(seat) != before for seat in seats):
            raise ValueError(f"{name} of {message.booking_id} moves seats that are not {before}")
        self.states |= dict.fromkeys(seats, after)
        counts[before] -= message.count
        counts[after] += message.count
        if counts[before] < 0 or message.count != sum(each.count for each in message.seats):
            raise ValueError(f"impossible number of seats: {name} of {message.booking_id}")
        for level, actual in (("available", counts["free"]), ("sold", self.sold)):
            if level in message.DESCRIPTOR.fields_by_name and getattr(message, level) != actual:
                raise ValueError(f"{level} of {name} is {getattr(message, level)}, the sum is {actual}")


def _count(section: Any) -> int:
    return int(section.capacity or sum(row.seats for row in section.rows))


def _find_state(events: Sequence[Event]) -> str:
    last = find_last(events, events_pb2.ShowScheduled, events_pb2.ShowCancelled, events_pb2.ShowSettled)
    return str(last.DESCRIPTOR.name.removeprefix("Show").upper())


def _find_waiting_lists(events: Sequence[Event]) -> dict[str, str]:
    """Return the waiting lists of the sections for which buyers wait, by section id."""
    last = {
        message.section_id: message
        for message in iterate(events, events_pb2.WaitingBegan, events_pb2.WaitingEnded)
    }
    return {
        id_: message.waiting_list_id
        for id_, message in last.items()
        if isinstance(message, events_pb2.WaitingBegan)
    }


def fold_show(events: Sequence[Event]) -> types.Show:
    first, seats = get_first(events, events_pb2.ShowScheduled), Seats(events)
    cancelled = find_last(events, events_pb2.ShowCancelled)
    marks = {"free": ".", "held": "h", "sold": "s"}
    sections = []
    for id_, section in seats.sections.items():
        rows = [
            types.Show.RowSeats(
                label=row.label,
                seats="".join(marks[seats.states[id_, row.label, n + 1]] for n in range(row.seats)),
            )
            for row in section.rows
        ]
        sections.append(
            types.Show.SectionSeats(
                section_id=id_,
                price=section.price,
                rows=rows,
                capacity=_count(section),
                held=seats.counts[id_]["held"],
                sold=seats.counts[id_]["sold"],
            )
        )
    return types.Show(
        show_id=first.show_id,
        version=len(events),
        state=types.Show.State.Value(f"STATE_{_find_state(events)}"),
        title=first.title,
        venue=first.venue,
        place_id=first.place_id,
        doors_time=first.doors_at,
        doors=first.doors,
        sections=sections,
        seats_per_buyer=first.seats_per_buyer,
        schedule_time=first.scheduled_at,
        cancel_time=cancelled and cancelled.cancelled_at,
        cancel_reason=cancelled.reason if cancelled else "",
    )


def fold_show_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    first, seats = get_first(events, events_pb2.ShowScheduled), Seats(events)
    waiting_lists = _find_waiting_lists(events)
    sections = [
        {
            "section_id": id_,
            "price": encode_money(section.price),
            "rows": [{"label": row.label, "seats": row.seats} for row in section.rows],
            "capacity": _count(section),
            "available": seats.counts[id_]["free"],
            "taken": [
                sum(
                    2 ** (number - 1)
                    for number in range(1, row.seats + 1)
                    if seats.states[id_, row.label, number] != "free"
                )
                for row in section.rows
            ],
            "waiting_list_id": waiting_lists.get(id_, ""),
        }
        for id_, section in seats.sections.items()
    ]
    return {
        "status": _find_state(events),
        "title": first.title,
        "venue": first.venue,
        "place_id": first.place_id,
        "doors_at": encode_time(first.doors_at),
        "seats_per_buyer": first.seats_per_buyer,
        "sections": sections,
        "sold": seats.sold,
    }


def fold_availability(events: Sequence[Event]) -> types.Availability:
    first, seats = get_first(events, events_pb2.ShowScheduled), Seats(events)
    waiting_lists = _find_waiting_lists(events)
    return types.Availability(
        show_id=first.show_id,
        version=len(events),
        state=types.Show.State.Value(f"STATE_{_find_state(events)}"),
        title=first.title,
        venue=first.venue,
        place_id=first.place_id,
        doors_time=first.doors_at,
        sections=[
            types.Availability.SectionAvailability(
                section_id=id_,
                price=section.price,
                capacity=_count(section),
                available=seats.counts[id_]["free"],
                waiting=id_ in waiting_lists,
            )
            for id_, section in seats.sections.items()
        ],
    )


def availability_indexes(view: types.Availability) -> list[tuple[str, str]]:
    member = index_member(view.doors_time.ToMicroseconds(), view.show_id)
    return list_entries(AVAILABILITY, member, ("all",), ("place", view.place_id))


BOOKING_STATES: dict[Any, str] = {
    events_pb2.BookingMade: "HELD",
    events_pb2.PurchaseRequested: "PAYING",
    events_pb2.TicketsIssued: "SOLD",
    events_pb2.TicketsReturned: "RETURNED",
    events_pb2.BookingReleased: "RELEASED",
    events_pb2.BookingExpired: "RELEASED",
}
BOOKING_ENDS: dict[Any, tuple[str, str]] = {
    events_pb2.TicketsReturned: ("returned_at", ""),
    events_pb2.BookingReleased: ("released_at", ""),
    events_pb2.BookingExpired: ("expired_at", "its deadline has passed"),
}
"""Event to (its field with the end of the booking, reason); empty: the event's own reason."""


def fold_booking(events: Sequence[Event]) -> types.Booking:
    first, last = get_first(events, events_pb2.BookingMade), events[-1].message
    paid, issued = (
        find_last(events, events_pb2.PurchaseRequested),
        find_last(events, events_pb2.TicketsIssued),
    )
    numbered = [(row, number) for _, row, number in _list_seats("", first.seats)]
    places = numbered or [("", 0)] * sum(each.count for each in first.seats)
    tickets = [
        types.Booking.Ticket(ticket_id=f"{first.booking_id}.{position}", row=row, seat=number)
        for position, (row, number) in enumerate(places if issued else (), 1)
    ]
    view = types.Booking(
        booking_id=first.booking_id,
        version=len(events),
        state=types.Booking.State.Value(f"STATE_{BOOKING_STATES[type(last)]}"),
        show_id=first.show_id,
        section_id=first.section_id,
        buyer_id=first.buyer_id,
        seats=first.seats,
        total=first.total,
        deadline=first.deadline,
        account_id=paid.account_id if paid else "",
        tickets=tickets,
        hold_time=first.made_at,
        issue_time=issued and issued.issued_at,
    )
    if type(last) in BOOKING_ENDS:
        time_field, reason = BOOKING_ENDS[type(last)]
        view.end_time.CopyFrom(getattr(last, time_field))
        view.end_reason = reason or last.reason
    return view


def fold_booking_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    first, paid = get_first(events, events_pb2.BookingMade), find_last(events, events_pb2.PurchaseRequested)
    return {
        "status": BOOKING_STATES[type(events[-1].message)],
        "show_id": first.show_id,
        "section_id": first.section_id,
        "buyer_id": first.buyer_id,
        "seats": [{"row": each.row, "first": each.first, "count": each.count} for each in first.seats],
        "named": first.named,
        "total": encode_money(first.total),
        "deadline": encode_time(first.deadline),
        "account_id": paid.account_id if paid else "",
    }


def booking_indexes(view: types.Booking) -> list[tuple[str, str]]:
    """Return the index entries of a booking: of one with tickets by buyer and show, of one that has ended."""
    member = index_member(view.issue_time.ToMicroseconds(), view.booking_id)
    buyer, show = view.buyer_id, view.show_id
    with_tickets = [("all",), ("buyer", buyer), ("show", show), ("buyer_show", buyer, show)]
    has_tickets = view.HasField("issue_time") and not has_end_time(view)
    entries = list_entries(BOOKING, member, *with_tickets) if has_tickets else []
    return [*entries, *list_ended(BOOKING, "booking_id")(view)]


def fold_allowance_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    last = events[-1].message
    return {"open_holds": last.open_holds, "seats": last.seats}


def _find_waiting(events: Sequence[Event]) -> list[Any]:
    """Return the events of the entries that were not removed."""
    ends = iterate(events, events_pb2.WaitingListLeft, events_pb2.SeatsOffered)
    gone = Counter(message.booking_id for message in ends)
    waiting: list[Any] = []
    for message in iterate(events, events_pb2.WaitingListJoined):
        gone[message.booking_id] -= 1
        if gone[message.booking_id] < 0:
            waiting.append(message)
    return waiting


def fold_waiting_list(events: Sequence[Event]) -> types.WaitingList:
    first = get_first(events, events_pb2.WaitingListJoined)
    return types.WaitingList(
        waiting_list_id=first.waiting_list_id,
        version=len(events),
        show_id=first.show_id,
        section_id=first.section_id,
        entries=[
            types.WaitingList.Entry(
                booking_id=message.booking_id,
                buyer_id=message.buyer_id,
                count=message.count,
                join_time=message.joined_at,
            )
            for message in _find_waiting(events)
        ],
    )


def fold_waiting_list_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    names = ("booking_id", "buyer_id", "count")
    return {"entries": [{name: getattr(entry, name) for name in names} for entry in _find_waiting(events)]}


def waiting_list_indexes(view: types.WaitingList) -> list[tuple[str, str]]:
    member = index_member(0, view.waiting_list_id)
    return list_entries(WAITING_LIST, member, ("section", view.show_id, view.section_id))


AGGREGATES = (
    Aggregate(
        "ticketing.show",
        events=EVENTS,
        snapshot=fold_show_snapshot,
        projections=(
            ProjectionSpec(SHOW, fold=fold_show, columns=columns("state", "title", "doors_time")),
            ProjectionSpec(
                AVAILABILITY,
                fold=fold_availability,
                columns=columns("state", "place_id"),
                indexes=availability_indexes,
            ),
        ),
    ),
    Aggregate(
        "ticketing.booking",
        events=EVENTS,
        snapshot=fold_booking_snapshot,
        projections=(
            ProjectionSpec(
                BOOKING,
                fold=fold_booking,
                columns=columns("state", "show_id", "buyer_id", "total", "deadline"),
                indexes=booking_indexes,
                has_ended=has_end_time,
            ),
        ),
    ),
    Aggregate(
        "ticketing.waiting_list",
        events=EVENTS,
        snapshot=fold_waiting_list_snapshot,
        projections=(
            ProjectionSpec(
                WAITING_LIST,
                fold=fold_waiting_list,
                columns=columns("show_id", "section_id"),
                indexes=waiting_list_indexes,
            ),
        ),
    ),
    Aggregate("ticketing.allowance", events=EVENTS, snapshot=fold_allowance_snapshot, projections=()),
)


def find_deadline(event: Any) -> datetime | None:
    return event.deadline.ToDatetime(UTC) if isinstance(event, events_pb2.BookingMade) else None


def get_cancelled_id(message: Any) -> str:
    return str(message.show_id) if isinstance(message, events_pb2.ShowCancelled) else ""


def get_awaited_id(message: Any) -> str:
    freed = (events_pb2.SeatsReleased, events_pb2.SeatsReturned)
    return str(message.waiting_list_id) if isinstance(message, freed) else ""


def get_left_id(message: Any) -> str:
    return str(message.waiting_list_id) if isinstance(message, events_pb2.WaitingListLeft) else ""


SAGAS = (
    SagaSpec("ticketing.hold_deadline", "ticketing.booking", deadline=find_deadline),
    SagaSpec("ticketing.cancellation", "", keys={"ticketing.show": get_cancelled_id}),
    SagaSpec(
        "ticketing.offers", "", keys={"ticketing.show": get_awaited_id, "ticketing.waiting_list": get_left_id}
    ),
)
