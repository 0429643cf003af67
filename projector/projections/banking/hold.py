"""The view of a hold: every field of `diptych.banking.v1.Hold`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views

from contracts.events.banking import EVENTS
from contracts.view_layout import View
from projector.archival import archival_by_end_time, ended_entries
from projector.projection import Projection

EXPIRED = "its deadline has passed"

VIEW = View.of(views.Hold)

HOLDS = Projection[views.Hold](
    VIEW,
    events=EVENTS,
    columns=("state", "account_id", "amount", "deadline"),
    indexes=ended_entries(VIEW, "hold_id"),
    archival=archival_by_end_time(VIEW),
)


@HOLDS.on(events.HoldPlaced)
def placed(hold: views.Hold, event: events.HoldPlaced) -> None:
    hold.hold_id = event.hold_id
    hold.state = views.Hold.STATE_OPEN
    hold.account_id = event.account_id
    hold.amount.CopyFrom(event.amount)
    hold.deadline.CopyFrom(event.deadline)
    hold.reference = event.reference
    hold.place_time.CopyFrom(event.placed_at)
    hold.owner_id = event.owner_id
    hold.customer_id = event.customer_id
    hold.mandate_id = event.mandate_id


@HOLDS.on(events.HoldFirmed)
def firmed(hold: views.Hold, _: events.HoldFirmed) -> None:
    hold.state = views.Hold.STATE_FIRM


@HOLDS.on(events.HoldCaptured)
def captured(hold: views.Hold, event: events.HoldCaptured) -> None:
    hold.state = views.Hold.STATE_CAPTURED
    hold.captured.CopyFrom(event.amount)
    hold.end_time.CopyFrom(event.captured_at)


@HOLDS.on(events.HoldReleased)
def released(hold: views.Hold, event: events.HoldReleased) -> None:
    hold.state = views.Hold.STATE_RELEASED
    hold.release_reason = event.reason
    hold.end_time.CopyFrom(event.released_at)


@HOLDS.on(events.HoldExpired)
def expired(hold: views.Hold, event: events.HoldExpired) -> None:
    hold.state = views.Hold.STATE_RELEASED
    hold.release_reason = EXPIRED
    hold.end_time.CopyFrom(event.expired_at)
