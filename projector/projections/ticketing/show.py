"""The view of a show with the state of each seat: every field of `diptych.ticketing.v1.Show`."""

from diptych.ticketing.v1 import events_pb2 as events
from diptych.ticketing.v1 import types_pb2 as views

from contracts.events.ticketing import EVENTS
from contracts.view_layout import View
from projector.projection import Projection

VIEW = View.of(views.Show)
FREE, HELD, SOLD = ".", "h", "s"

SHOWS = Projection[views.Show](VIEW, events=EVENTS, columns=("state", "title", "doors_time"))


@SHOWS.on(events.ShowScheduled)
def scheduled(show: views.Show, event: events.ShowScheduled) -> None:
    show.show_id = event.show_id
    show.state = views.Show.STATE_SCHEDULED
    show.title = event.title
    show.venue = event.venue
    show.place_id = event.place_id
    show.doors_time.CopyFrom(event.doors_at)
    show.doors.CopyFrom(event.doors)
    show.seats_per_buyer = event.seats_per_buyer
    show.schedule_time.CopyFrom(event.scheduled_at)
    for section in event.sections:
        show.sections.add(
            section_id=section.section_id,
            price=section.price,
            rows=[views.Show.RowSeats(label=row.label, seats=FREE * row.seats) for row in section.rows],
            capacity=section.capacity or sum(row.seats for row in section.rows),
        )


@SHOWS.on(events.SeatsHeld)
def held(show: views.Show, event: events.SeatsHeld) -> None:
    section = _mark(show, event, HELD)
    section.held += event.count


@SHOWS.on(events.SeatsReleased)
def released(show: views.Show, event: events.SeatsReleased) -> None:
    section = _mark(show, event, FREE)
    section.held -= event.count


@SHOWS.on(events.SeatsSold)
def sold(show: views.Show, event: events.SeatsSold) -> None:
    section = _mark(show, event, SOLD)
    section.held -= event.count
    section.sold += event.count


@SHOWS.on(events.SeatsReturned)
def returned(show: views.Show, event: events.SeatsReturned) -> None:
    section = _mark(show, event, FREE)
    section.sold -= event.count


@SHOWS.on(events.ShowCancelled)
def cancelled(show: views.Show, event: events.ShowCancelled) -> None:
    show.state = views.Show.STATE_CANCELLED
    show.cancel_time.CopyFrom(event.cancelled_at)
    show.cancel_reason = event.reason


@SHOWS.on(events.ShowSettled)
def settled(show: views.Show, _: events.ShowSettled) -> None:
    show.state = views.Show.STATE_SETTLED


def _mark(
    show: views.Show,
    event: events.SeatsHeld | events.SeatsReleased | events.SeatsSold | events.SeatsReturned,
    mark: str,
) -> views.Show.SectionSeats:
    """Give the seats of an event another state, and return their section.

    Raises:
        LookupError: the show has no such section or row, so the event cannot be applied.
    """
    section = _get_section(show, event.section_id)
    for seats in event.seats:
        if seats.row:
            row = _get_row(section, seats.row)
            before = seats.first - 1
            row.seats = row.seats[:before] + mark * seats.count + row.seats[before + seats.count :]
    return section


def _get_section(show: views.Show, section_id: str) -> views.Show.SectionSeats:
    for section in show.sections:
        if section.section_id == section_id:
            return section
    raise LookupError(f"the show has no section {section_id}")


def _get_row(section: views.Show.SectionSeats, label: str) -> views.Show.RowSeats:
    for row in section.rows:
        if row.label == label:
            return row
    raise LookupError(f"section {section.section_id} has no row {label}")
