"""Recorded events of reservations, as the feed brings them."""

from datetime import datetime

from diptych.inventory.v1 import events_pb2 as events

from contracts.envelope import RecordedEvent
from tests.support.harness.saga_run import recorded_as


def made(id_: str, deadline: datetime, version: int = 1) -> RecordedEvent:
    message = events.ReservationMade(reservation_id=id_)
    message.deadline.FromDatetime(deadline)
    return recorded_as(f"inventory.reservation.{id_}", message, version)


def ended(id_: str, version: int) -> RecordedEvent:
    """Return a later event of a reservation."""
    return recorded_as(
        f"inventory.reservation.{id_}", events.ReservationCommitted(reservation_id=id_), version
    )
