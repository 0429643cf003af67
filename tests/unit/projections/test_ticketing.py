"""The views of ticketing: seats as text, tickets, and events that cannot be applied."""

from collections.abc import Sequence
from typing import Any

import pytest
from diptych.ticketing.v1 import events_pb2 as events
from diptych.ticketing.v1.types_pb2 import Booking, Row, SeatRange, Section, Show
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from diptych_testing.scenario import NOW
from projector.projections.ticketing.booking import BOOKINGS
from projector.projections.ticketing.show import SHOWS

SCHEDULED = events.ShowScheduled(
    show_id="s-1", sections=[Section(section_id="stalls", rows=[Row(label="A", seats=6)])]
)
SEATS: dict[str, Any] = {
    "section_id": "stalls",
    "seats": [SeatRange(row="A", first=2, count=2), SeatRange(row="A", first=6, count=1)],
    "count": 3,
}


def fold(projection: Any, *messages: Message) -> tuple[Any, int, Exception | None]:
    recorded = [
        RecordedEvent("s", n, message.DESCRIPTOR.full_name, message.SerializeToString(), NOW, n, {})
        for n, message in enumerate(messages, 1)
    ]
    rendered, count, error = projection.fold(projection.view.message(), recorded)
    return rendered and rendered.message, count, error


def read_row(*messages: Message) -> tuple[str, int, int]:
    show: Show = fold(SHOWS, SCHEDULED, *messages)[0]
    (section,) = show.sections
    return section.rows[0].seats, section.held, section.sold


def test_a_show_has_one_character_for_each_seat() -> None:
    held, sold = events.SeatsHeld(**SEATS), events.SeatsSold(**SEATS)
    assert read_row() == ("......", 0, 0)
    assert read_row(held) == (".hh..h", 3, 0)
    assert read_row(held, events.SeatsReleased(**SEATS)) == ("......", 0, 0)
    assert read_row(held, sold) == (".ss..s", 0, 3)
    assert read_row(held, sold, events.SeatsReturned(**SEATS)) == ("......", 0, 0)


@pytest.mark.parametrize(
    ("section", "row"), [("balcony", "A"), ("stalls", "Z")], ids=["unknown section", "unknown row"]
)
def test_an_event_of_seats_that_the_show_lacks_cannot_be_applied(section: str, row: str) -> None:
    seats = [SeatRange(row=row, first=1, count=1)]
    _, count, error = fold(SHOWS, SCHEDULED, events.SeatsHeld(section_id=section, seats=seats, count=1))
    assert (count, type(error)) == (1, LookupError)


@pytest.mark.parametrize(
    ("seats", "expected"),
    [
        (SEATS["seats"], [("b-1.1", "A", 2), ("b-1.2", "A", 3), ("b-1.3", "A", 6)]),
        ([SeatRange(count=2)], [("b-1.1", "", 0), ("b-1.2", "", 0)]),
    ],
    ids=["rows", "general admission"],
)
def test_a_sold_booking_has_a_ticket_for_each_seat(
    seats: Sequence[SeatRange], expected: list[tuple[str, str, int]]
) -> None:
    made = events.BookingMade(booking_id="b-1", seats=seats)
    booking: Booking = fold(BOOKINGS, made, events.TicketsIssued(booking_id="b-1"))[0]
    assert [(ticket.ticket_id, ticket.row, ticket.seat) for ticket in booking.tickets] == expected
