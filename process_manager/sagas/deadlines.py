"""Expire reservations and holds after their deadlines, whether or not another saga made them.

Inventory and banking reject a firm, commit or capture that comes after the deadline. These sagas also end
the reservation or hold itself, so that it does not stay open. Most end before their deadlines, so an instance
begins only at the deadline (`Deadline`).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from contracts.event_types import EventTypes
from process_manager.saga import (
    AbortRequested,
    ActionNotPossible,
    Deadline,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Saga,
    SagaStatus,
    Send,
    StepRejected,
    StepSucceeded,
    Timer,
    TimerFired,
)
from process_manager.subscriptions import Subscription

RETRY_INTERVAL = timedelta(seconds=1)
"""Time before a rejected expiry is tried again, if its deadline does not come later. It is rejected if the
database's clock was ahead when the timer fired."""
MAX_EXPIRY_DURATION = timedelta(minutes=1)
"""Time after which a saga that is still expiring is overdue."""
DEADLINE = "deadline"


@dataclass(frozen=True)
class Expiry:
    """The state of a deadline saga."""

    id: str = ""
    over: bool = False
    """Whether the reservation or hold is firm or has ended, so that its deadline no longer applies."""
    tries: int = 0
    deadline: datetime | None = None


def deadline_saga(
    name: str,
    stream_type: str,
    events: EventTypes,
    first_event: type[Message],
    expire_request: type[Message],
) -> Saga[Expiry]:
    """Return a saga that expires reservations or holds.

    Args:
        name: the saga's name.
        stream_type: the type of the streams of the reservations or holds.
        events: their events.
        first_event: the event that sets the `deadline`. Its first field is the id. Any other event of the
            stream ends the saga.
        expire_request: the request that expires one if its deadline has passed; it names the id as the first
            event does.

    Raises:
        ValueError: `first_event` is not the newest version of an event.
    """
    id_field = first_event.DESCRIPTOR.fields[0].name

    def find_deadline(event: Any) -> datetime:
        return event.deadline.ToDatetime(UTC)  # type: ignore[no-any-return]

    def begin(id_: str, deadline: datetime) -> Expiry:
        return Expiry(id_, deadline=deadline)

    def react(expiry: Expiry, input_: Input) -> Reaction[Expiry]:
        match input_:
            case EventReceived(event) if isinstance(event, first_event):  # read again, to close a gap
                at = find_deadline(event)
                return Reaction(begin(getattr(event, id_field), at), timers=[Timer(DEADLINE, at)])
            case EventReceived():
                return Reaction(replace(expiry, over=True), timers=[Timer(DEADLINE, None)])
            case TimerFired() | RetryRequested() if not expiry.over:
                expiry = replace(expiry, tries=expiry.tries + 1)
                request = expire_request(**{id_field: expiry.id})
                return Reaction(expiry, [Send(f"expire-{expiry.tries}", request)])
            case StepRejected() if not expiry.over:
                again = input_.at + RETRY_INTERVAL
                return Reaction(expiry, timers=[Timer(DEADLINE, max(again, expiry.deadline or again))])
            case StepSucceeded():
                return Reaction(replace(expiry, over=True))
            case AbortRequested():
                instead = "it is over" if expiry.over else "release or cancel what expires instead"
                raise ActionNotPossible(f"cannot abort: {instead}")
        return Reaction(expiry)

    return Saga(
        name=name,
        subscribes_to=(Subscription(stream_type, events),),
        begins="first_event",
        requests=(expire_request,),
        initial=Expiry(),
        react=react,
        describe_status=describe_status,
        deadline=Deadline(first_event, find_deadline, DEADLINE, begin),
    )


def describe_status(expiry: Expiry) -> SagaStatus:
    if expiry.over:
        return SagaStatus("OVER", True)
    if expiry.tries:
        return SagaStatus("EXPIRING", False, MAX_EXPIRY_DURATION)
    return SagaStatus("WATCHING", False, waiting_for="its deadline")
