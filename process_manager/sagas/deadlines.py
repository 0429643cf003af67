"""What is reserved or held until a deadline is let go once that has passed, with or without a saga round it.

The rules of inventory and banking refuse what comes too late by themselves; these sagas see to it that
nothing stays reserved or held for nobody.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from types import ModuleType
from typing import Any

from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import events_pb2 as money
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import events_pb2 as stock
from google.protobuf.message import Message

from process_manager.saga import (
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

AGAIN = timedelta(seconds=1)
"""How much later it is tried again, where the other's clock is behind."""
SOON = timedelta(minutes=1)
"""How long it may take to let something go."""
DEADLINE = "deadline"


@dataclass(frozen=True)
class Watching:
    """Something that has a deadline."""

    id: str = ""
    over: bool = False
    """Whether it was made firm, or has ended."""
    tries: int = 0


def deadlines(
    name: str,
    subscribes_to: str,
    events: ModuleType,
    begins: type[Message],
    expire: Callable[[str], Message],
) -> Saga[Watching]:
    """Return the saga that lets one kind of thing expire.

    Args:
        name: the saga's.
        hears: the type of the streams of these things.
        events: the module of their events.
        begins: the event with which one begins, with a `deadline`; every other one ends the waiting.
        expire: returns the command that lets one go if its time is over.
    """

    def react(watching: Watching, received: Input) -> Reaction[Watching]:
        match received:
            case EventReceived(event) if isinstance(event, begins):
                (id_,) = (getattr(event, field) for field in _id_of(begins))
                at = event.deadline.ToDatetime(received.at.tzinfo)  # type: ignore[attr-defined]
                return Reaction(Watching(id_), timers=[Timer(DEADLINE, at)])
            case EventReceived():
                return Reaction(replace(watching, over=True), timers=[Timer(DEADLINE, None)])
            case TimerFired() | RetryRequested() if not watching.over:
                sent = replace(watching, tries=watching.tries + 1)
                return Reaction(sent, [Send(f"expire-{sent.tries}", expire(watching.id))])
            case StepRejected() if not watching.over:
                return Reaction(watching, timers=[Timer(DEADLINE, received.at + AGAIN)])
            case StepSucceeded():
                return Reaction(replace(watching, over=True))
        return Reaction(watching)

    return Saga(name, subscribes_to, (events,), Watching(), react, _standing)


def _id_of(begins: type[Message]) -> list[str]:
    """Return the field of an event that is its aggregate's id, the first."""
    return [begins.DESCRIPTOR.fields[0].name]


def _standing(watching: Watching) -> SagaStatus:
    if watching.over:
        return SagaStatus("OVER", True)
    if watching.tries:
        return SagaStatus("EXPIRING", False, SOON)
    return SagaStatus("WATCHING", False, waiting_for="its deadline")


def _expire_reservation(id_: str) -> Any:
    return inventory.ExpireReservationRequest(reservation_id=id_)


def _expire_hold(id_: str) -> Any:
    return banking.ExpireHoldRequest(hold_id=id_)


RESERVATIONS = deadlines(
    "inventory.reservation_deadline",
    "inventory.reservation",
    stock,
    stock.ReservationMade,
    _expire_reservation,
)
HOLDS = deadlines("banking.hold_deadline", "banking.hold", money, money.HoldPlaced, _expire_hold)
