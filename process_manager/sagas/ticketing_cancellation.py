"""The cancellation of a show: take back its tickets booking by booking, then settle the show.

How it works. The saga asks the read side for a page of the show's bookings with tickets, sends a refund for
each, and asks again when all are answered. The read side may lag: a booking that is listed again changes
nothing, and one that is not listed yet is found later, because the write side refuses to settle a show that
has tickets. So the state is one page, however many tickets a show has, and it goes on wherever it was
stopped. The money is paid back by the purchase of each booking.
"""

from datetime import timedelta

from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import events_pb2 as events
from diptych.ticketing.v1 import query_service_pb2 as queries
from msgspec import Struct
from msgspec.structs import replace

from contracts.events.ticketing import EVENTS
from process_manager.saga import (
    AbortRequested,
    ActionNotPossible,
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

PAGE_SIZE = 20
"""Bookings that are refunded at a time."""
PAUSE = timedelta(seconds=1)
"""Time before the read side is asked again for what it lacked."""
MAX_DURATION = timedelta(hours=1)
"""Time after which a cancellation is overdue."""
NEXT_ROUND = "next round"


class Cancellation(Struct, frozen=True):
    """The state of the saga. It is stored as JSON; fields added later need defaults."""

    show_id: str = ""
    round: int = 0
    """The number of pages that were asked for."""
    pending: int = 0
    """The number of steps without an answer."""
    rejected: bool = False
    """Whether a refund of this round was rejected."""
    over: bool = False


def react(state: Cancellation, input_: Input) -> Reaction[Cancellation]:
    match input_:
        case EventReceived(events.ShowCancelled() as event):
            return begin_round(Cancellation(event.show_id))
        case StepSucceeded(step, queries.ListTicketsResponse() as page) if step.startswith("list-"):
            return refund_all(state, [booking.booking_id for booking in page.bookings])
        case StepSucceeded(step) if step.startswith("settle-"):
            return Reaction(replace(state, pending=0, over=True))
        case StepSucceeded(step) | StepRejected(step) if step.startswith("refund-"):
            rejected = state.rejected or isinstance(input_, StepRejected)
            state = replace(state, pending=state.pending - 1, rejected=rejected)
            if state.pending:
                return Reaction(state)
            return pause(state, input_) if rejected else begin_round(state)
        case StepRejected():  # tickets that the page did not have, for instance
            return pause(state, input_)
        case TimerFired() | RetryRequested() if not state.over and not state.pending:
            return begin_round(state)
        case AbortRequested():
            raise ActionNotPossible("cannot abort: a cancelled show keeps no tickets")
    return Reaction(state)


def begin_round(state: Cancellation) -> Reaction[Cancellation]:
    state = replace(state, round=state.round + 1, pending=1, rejected=False)
    request = queries.ListTicketsRequest(show_id=state.show_id, page_size=PAGE_SIZE)
    return Reaction(state, [Send(f"list-{state.round}", request)], [Timer(NEXT_ROUND, None)])


def refund_all(state: Cancellation, booking_ids: list[str]) -> Reaction[Cancellation]:
    """Refund the bookings of a page; if there is none, settle the show."""
    if not booking_ids:
        request = commands.SettleShowRequest(show_id=state.show_id)
        return Reaction(replace(state, pending=1), [Send(f"settle-{state.round}", request)])
    steps = [
        Send(f"refund-{state.round}-{number}", commands.RefundTicketsRequest(booking_id=id_))
        for number, id_ in enumerate(booking_ids, 1)
    ]
    return Reaction(replace(state, pending=len(steps)), steps)


def pause(state: Cancellation, input_: Input) -> Reaction[Cancellation]:
    return Reaction(replace(state, pending=0), timers=[Timer(NEXT_ROUND, input_.at + PAUSE)])


def describe_status(state: Cancellation) -> SagaStatus:
    return SagaStatus("SETTLED", True) if state.over else SagaStatus("REFUNDING", False, MAX_DURATION)


CANCELLATIONS: Saga[Cancellation] = Saga(
    name="ticketing.cancellation",
    subscribes_to=(Subscription("ticketing.show", EVENTS, key={events.ShowCancelled: "show_id"}),),
    begins="first_event",
    requests=(queries.ListTicketsRequest, commands.RefundTicketsRequest, commands.SettleShowRequest),
    initial=Cancellation(),
    react=react,
    describe_status=describe_status,
)
