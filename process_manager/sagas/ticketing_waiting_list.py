"""The offers of a waiting list: whenever seats that buyers wait for are freed, offer them to who is next.

The saga sends OfferSeats until it is refused: nobody waits any more, or there are no such seats. It begins
again with the next event, so it needs no knowledge of seats or entries.
"""

from datetime import timedelta

from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import events_pb2 as events
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
)
from process_manager.subscriptions import Subscription

MAX_DURATION = timedelta(minutes=1)
"""Time after which offers are overdue."""


class Offers(Struct, frozen=True):
    """The state of the saga. It is stored as JSON; fields added later need defaults."""

    show_id: str = ""
    section_id: str = ""
    sent: int = 0
    """The number of offers that were sent."""
    pending: bool = False
    """Whether the last one is unanswered."""
    again: bool = False
    """Whether seats were freed since it was sent."""


def react(offers: Offers, input_: Input) -> Reaction[Offers]:
    match input_:
        case EventReceived(event):
            offers = replace(offers, show_id=event.show_id, section_id=event.section_id)
            return Reaction(replace(offers, again=True)) if offers.pending else offer(offers)
        case StepSucceeded():
            return offer(offers)
        case StepRejected() if offers.again:
            return offer(offers)
        case StepRejected():
            return Reaction(replace(offers, pending=False))
        case RetryRequested() if offers.show_id and not offers.pending:
            return offer(offers)
        case AbortRequested():
            raise ActionNotPossible("cannot abort: buyers leave a waiting list by themselves")
    return Reaction(offers)


def offer(offers: Offers) -> Reaction[Offers]:
    offers = replace(offers, sent=offers.sent + 1, pending=True, again=False)
    request = commands.OfferSeatsRequest(show_id=offers.show_id, section_id=offers.section_id)
    return Reaction(offers, [Send(f"offer-{offers.sent}", request)])


def describe_status(offers: Offers) -> SagaStatus:
    return SagaStatus("OFFERING", False, MAX_DURATION) if offers.pending else SagaStatus("RESTING", True)


OFFERS: Saga[Offers] = Saga(
    name="ticketing.offers",
    subscribes_to=(
        Subscription(
            "ticketing.show",
            EVENTS,
            key={  # empty where nobody waits
                events.SeatsReleased: "waiting_list_id",
                events.SeatsReturned: "waiting_list_id",
            },
        ),
        Subscription("ticketing.waiting_list", EVENTS, key={events.WaitingListLeft: "waiting_list_id"}),
    ),
    begins="first_event",
    requests=(commands.OfferSeatsRequest,),
    initial=Offers(),
    react=react,
    describe_status=describe_status,
)
