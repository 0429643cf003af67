"""The vocabulary of sagas: what one is told, and what it then remembers, sends and waits for.

A saga follows one stream: its id is that of the aggregate, and it hears each of the stream's events once,
in order. It is pure, `react(state, received) -> Reaction`: time comes in with what it is told, and what it sends is
sent by others, again and again until it is answered. A step's request id is made of the saga, the step and
the attempt, so a step that is repeated takes effect once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.upcasters import Upcaster, upcast

S = TypeVar("S")

# What a saga is told.


@dataclass(frozen=True, slots=True)
class EventReceived:
    """An event of the stream that the saga follows."""

    event: Any
    version: int
    at: datetime
    """When it is told, which may be long after the event."""


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """A step was done."""

    step: str
    response: Any
    at: datetime


@dataclass(frozen=True, slots=True)
class StepRejected:
    """A step was refused: it has changed nothing, and repeating it would not help."""

    step: str
    reason: str
    details: Mapping[str, str]
    at: datetime


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer has run out."""

    timer: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """An operator wants what was refused to be tried again."""

    at: datetime


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """An operator wants an end; what can be undone is undone."""

    reason: str
    at: datetime


Input = EventReceived | StepSucceeded | StepRejected | TimerFired | RetryRequested | AbortRequested


class ActionNotPossible(Exception):
    """An operator's wish that cannot be met where the saga stands; the message says why."""


# What it wants.


@dataclass(frozen=True, slots=True)
class Send:
    """A step: a command, or a query, to be sent until it is answered.

    Its name is unique within the saga; a step is sent a second time only after an operator's Retry.
    """

    step: str
    request: Message
    """A request of a CommandService or a QueryService; its request id is put in."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer of this name is to run out at a time, whatever it was set to before; None takes it away."""

    name: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Reaction(Generic[S]):
    """What follows from what a saga was told."""

    state: S
    send: Sequence[Send] = ()
    timers: Sequence[Timer] = ()


@dataclass(frozen=True, slots=True)
class SagaStatus:
    """Where a saga is, for people: the same for sagas of all kinds."""

    state: str
    """In UPPER_SNAKE_CASE."""
    ended: bool
    within: timedelta | None = None
    """How soon it should stand elsewhere; None where it may take as long as it takes."""
    waiting_for: str = ""
    """What it waits for where no step is under way, in words."""
    blocked_reason: str = ""
    """Why it does not go on without an operator."""


@dataclass(frozen=True)
class Saga(Generic[S]):
    """One kind of saga.

    Args:
        name: `<context>.<saga>`.
        hears: the type of the streams that its instances follow.
        events: the modules of the events of those streams.
        initial: the state before the first event; its class is kept as JSON, so it has simple fields, and
            fields that are added later have defaults.
        react: what follows from what an instance is told. It raises nothing but Impossible, of an
            operator's wish.
        standing: where a state is, for people.
        upcasters: bring events of older versions to the newest before `react` gets them.
    """

    name: str
    subscribes_to: str
    events: Sequence[ModuleType]
    initial: S
    react: Callable[[S, Input], Reaction[S]]
    status: Callable[[S], SagaStatus]
    upcasters: Sequence[Upcaster] = ()
    messages: dict[str, type[Message]] = field(init=False, default_factory=dict)
    """The messages of the events by their full names."""

    def __post_init__(self) -> None:
        for module in self.events:
            for message in module.DESCRIPTOR.message_types_by_name.values():
                self.messages[message.full_name] = getattr(module, message.name)

    def decode(self, event: RecordedEvent) -> Message:
        """Return an event's message, in its newest version."""
        return upcast(self.messages[event.type].FromString(event.data), self.upcasters)
