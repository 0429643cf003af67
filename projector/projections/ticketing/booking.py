"""The view of a booking: every field of `diptych.ticketing.v1.Booking`."""

from diptych.ticketing.v1 import events_pb2 as events
from diptych.ticketing.v1 import types_pb2 as views
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.events.ticketing import EVENTS
from contracts.view_layout import View, index_member
from projector.archival import archival_by_end_time, ended_entries
from projector.projection import Entry, Projection

EXPIRED = "its deadline has passed"

VIEW = View.of(views.Booking)
_list_ended = ended_entries(VIEW, "booking_id")


def index_entries(booking: views.Booking) -> list[Entry]:
    """List bookings with tickets by buyer, by show, by both and all together, sorted by their issue."""
    if booking.state != views.Booking.STATE_SOLD:
        return _list_ended(booking)
    member = index_member(booking.issue_time.ToMicroseconds(), booking.booking_id)
    return [
        (VIEW.index("all"), member),
        (VIEW.index("buyer", booking.buyer_id), member),
        (VIEW.index("show", booking.show_id), member),
        (VIEW.index("buyer_show", booking.buyer_id, booking.show_id), member),
    ]


BOOKINGS = Projection[views.Booking](
    VIEW,
    events=EVENTS,
    columns=("state", "show_id", "buyer_id", "total", "deadline"),
    indexes=index_entries,
    archival=archival_by_end_time(VIEW),
)


@BOOKINGS.on(events.BookingMade)
def made(booking: views.Booking, event: events.BookingMade) -> None:
    booking.booking_id = event.booking_id
    booking.state = views.Booking.STATE_HELD
    booking.show_id = event.show_id
    booking.section_id = event.section_id
    booking.buyer_id = event.buyer_id
    booking.seats.extend(event.seats)
    booking.total.CopyFrom(event.total)
    booking.deadline.CopyFrom(event.deadline)
    booking.hold_time.CopyFrom(event.made_at)


@BOOKINGS.on(events.PurchaseRequested)
def purchase_requested(booking: views.Booking, event: events.PurchaseRequested) -> None:
    booking.state = views.Booking.STATE_PAYING
    booking.account_id = event.account_id


@BOOKINGS.on(events.TicketsIssued)
def tickets_issued(booking: views.Booking, event: events.TicketsIssued) -> None:
    booking.state = views.Booking.STATE_SOLD
    booking.issue_time.CopyFrom(event.issued_at)
    for seats in booking.seats:
        for offset in range(seats.count):
            number = len(booking.tickets) + 1
            seat = seats.first + offset if seats.row else 0
            booking.tickets.add(ticket_id=f"{booking.booking_id}.{number}", row=seats.row, seat=seat)


@BOOKINGS.on(events.TicketsReturned)
def tickets_returned(booking: views.Booking, event: events.TicketsReturned) -> None:
    """A returned ticket stays on its booking, so that people can look it up."""
    booking.state = views.Booking.STATE_RETURNED
    _end(booking, event.reason, event.returned_at)


@BOOKINGS.on(events.BookingReleased)
def released(booking: views.Booking, event: events.BookingReleased) -> None:
    booking.state = views.Booking.STATE_RELEASED
    _end(booking, event.reason, event.released_at)


@BOOKINGS.on(events.BookingExpired)
def expired(booking: views.Booking, event: events.BookingExpired) -> None:
    booking.state = views.Booking.STATE_RELEASED
    _end(booking, EXPIRED, event.expired_at)


def _end(booking: views.Booking, reason: str, at: Timestamp) -> None:
    booking.end_reason = reason
    booking.end_time.CopyFrom(at)
