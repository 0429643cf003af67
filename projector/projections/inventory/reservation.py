"""The view of a reservation: every field of `diptych.inventory.v1.Reservation`."""

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.events.inventory import EVENTS
from contracts.view_layout import View
from projector.archival import archival_by_end_time, ended_entries
from projector.projection import Projection

EXPIRED = "its deadline has passed"

VIEW = View.of(views.Reservation)

RESERVATIONS = Projection[views.Reservation](
    VIEW,
    events=EVENTS,
    columns=("state", "deadline"),
    indexes=ended_entries(VIEW, "reservation_id"),
    archival=archival_by_end_time(VIEW),
)


@RESERVATIONS.on(events.ReservationMade)
def made(reservation: views.Reservation, event: events.ReservationMade) -> None:
    reservation.reservation_id = event.reservation_id
    reservation.state = views.Reservation.STATE_OPEN
    reservation.lines.extend(event.lines)
    reservation.deadline.CopyFrom(event.deadline)
    reservation.make_time.CopyFrom(event.made_at)


@RESERVATIONS.on(events.ReservationFirmed)
def firmed(reservation: views.Reservation, _: events.ReservationFirmed) -> None:
    reservation.state = views.Reservation.STATE_FIRM


@RESERVATIONS.on(events.ReservationReleased)
def released(reservation: views.Reservation, event: events.ReservationReleased) -> None:
    reservation.state = views.Reservation.STATE_RELEASED
    reservation.release_reason = event.reason
    reservation.end_time.CopyFrom(event.released_at)


@RESERVATIONS.on(events.ReservationExpired)
def expired(reservation: views.Reservation, event: events.ReservationExpired) -> None:
    reservation.state = views.Reservation.STATE_RELEASED
    reservation.release_reason = EXPIRED
    reservation.end_time.CopyFrom(event.expired_at)


@RESERVATIONS.on(events.ReservationCommitted)
def committed(reservation: views.Reservation, event: events.ReservationCommitted) -> None:
    reservation.state = views.Reservation.STATE_COMMITTED
    reservation.end_time.CopyFrom(event.committed_at)
