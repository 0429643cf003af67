"""The vocabulary of sagas: their inputs, and the reactions that follow.

A saga instance receives events of the streams that `subscriptions.py` describes, each once, in the order of
their stream. A saga is pure, `react(state, input_) -> Reaction`: the time comes with the input, and the
engine sends the steps until they are answered. A step's request id is derived from the saga, the step and
the attempt, so a repeated request takes effect once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from google.protobuf.message import Message

from contracts import streams
from process_manager.subscriptions import Subscription

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class EventReceived:
    """An event of a stream to which the saga subscribes."""

    event: Any
    version: int
    """Its version in its stream."""
    stream: str
    """The name of its stream, for instance `ordering.order.o-1`."""
    at: datetime
    """When the saga receives the event, which may be long after the event was recorded."""


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """The request of a step was accepted, or its query answered."""

    step: str
    response: Any
    at: datetime

    @property
    def version(self) -> int:
        """The version of the command's aggregate after it; 0 for a query.

        Events of that aggregate may have been received already, up to this version and beyond.
        """
        receipt = getattr(self.response, "receipt", None)
        return receipt.version if receipt is not None else 0


@dataclass(frozen=True, slots=True)
class StepRejected:
    """The request of a step was rejected. It changed nothing, and sending it again would not help."""

    step: str
    reason: str
    details: Mapping[str, str]
    at: datetime

    @property
    def version(self) -> int:
        """The version of the aggregate that rejected the request; 0 if the rejection does not name it."""
        return int(self.details.get("actual_version", 0))


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer has expired."""

    timer: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """An operator requests that rejected steps be tried again."""

    at: datetime


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """An operator requests that the saga end and compensate for its steps where it can."""

    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RowTakenOver:
    """The state of an open instance is of an earlier release, which did not do what this one does."""

    at: datetime


Input = (
    EventReceived | StepSucceeded | StepRejected | TimerFired | RetryRequested | AbortRequested | RowTakenOver
)


class ActionNotPossible(Exception):
    """The saga's state does not permit an operator's action; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Send:
    """A step: a command or a query, sent until it is answered.

    The name of a step is unique within its saga instance. Only an operator's action permits one more attempt
    of each step, at once or in a later reaction.
    """

    step: str
    request: Message
    """A request of a CommandService or a QueryService, without its request id, which the engine sets."""


@dataclass(frozen=True, slots=True)
class Timer:
    """Sets the timer of this name, in place of its previous time; `at=None` cancels it."""

    name: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Reaction(Generic[S]):
    """The next state of a saga, with the steps to send and the timers to set."""

    state: S
    send: Sequence[Send] = ()
    timers: Sequence[Timer] = ()


@dataclass(frozen=True, slots=True)
class SagaStatus:
    """The status of a saga instance as operators see it, the same for all sagas."""

    state: str
    """In UPPER_SNAKE_CASE."""
    ended: bool
    max_duration: timedelta | None = None
    """Time after which a saga still in this state is overdue; None for no limit."""
    waiting_for: str = ""
    """For people: the event that the saga waits for when no step is pending."""
    blocked_reason: str = ""
    """For people: why the saga cannot continue without an operator; empty if it can."""


@dataclass(frozen=True)
class Deadline(Generic[S]):
    """Lets the instances of a saga begin at a deadline; until then a row with the deadline is all there is.

    Args:
        set_by: the event that sets the deadline, as the first one of its stream. Any other event ends it.
        find: returns the deadline that an event sets.
        timer: the name of the timer that fires at the deadline.
        begin: returns the state of an instance, from its id and its deadline. It is not an ended one, and has
            no maximum duration.
    """

    set_by: type[Message]
    find: Callable[[Any], datetime]
    timer: str
    begin: Callable[[str, datetime], S]


@dataclass(frozen=True)
class Saga(Generic[S]):
    """The definition of a saga.

    Args:
        name: `<context>.<saga>`.
        subscribes_to: the streams that the instances follow, of different types, at most one without a key.
        begins: whether a saga that is new to a database acts on the events recorded before its first start
            (`first_event`) or passes over them (`now`). Its first start decides; a later change does nothing.
        requests: the types of the requests that `react` may send. The engine refuses to send any other, and
            the scopes of the process manager's token follow from them.
        initial: the state before the first event. Its class is stored as JSON: it has simple fields, and
            fields added later need defaults.
        react: returns the reaction to an input. The only exception it raises on purpose is
            `ActionNotPossible`, for an operator's action.
        describe_status: returns the status that follows from a state.
        deadline: lets the instances begin at a deadline; None to begin with the first event.
        needs_input: whether a state is of an earlier release, so that the instance, while it is open, gets
            `RowTakenOver`. It is false for the state after that.

    Raises:
        ValueError: the subscriptions exclude each other, or the deadline, or the initial state has no status.
    """

    name: str
    subscribes_to: Sequence[Subscription]
    begins: Literal["first_event", "now"]
    requests: Sequence[type[Message]]
    initial: S
    react: Callable[[S, Input], Reaction[S]]
    describe_status: Callable[[S], SagaStatus]
    deadline: Deadline[S] | None = None
    needs_input: Callable[[S], bool] = lambda _: False

    def __post_init__(self) -> None:
        types = [subscription.stream_type for subscription in self.subscribes_to]
        if not types or len(set(types)) < len(types):
            raise ValueError(f"{self.name}: subscribes_to must name each stream type once, and at least one")
        if sum(subscription.key is None for subscription in self.subscribes_to) > 1:
            raise ValueError(f"{self.name}: only one subscription may be without a key")
        if self.begins not in ("first_event", "now"):
            raise ValueError(f"{self.name}: begins must be first_event or now")
        if self.deadline is not None:
            if len(types) > 1 or not self.own_type or self.begins != "first_event":
                raise ValueError(
                    f"{self.name}: a deadline needs one subscription without a key, and begins first_event"
                )
            self.subscribes_to[0].events.check_newest(self.deadline.set_by)
        try:  # an instance that fails on its first event has this state
            self.describe_status(self.initial)
        except Exception as error:
            raise ValueError(f"{self.name}: describe_status fails on the initial state: {error!r}") from error

    @property
    def own_type(self) -> str:
        """The type of the streams whose ids are the instances' ids; empty if each subscription has a key."""
        return next((each.stream_type for each in self.subscribes_to if each.key is None), "")

    def find_subscription(self, stream: str) -> Subscription:
        """Return the subscription to a stream.

        Raises:
            LookupError: there is none.
        """
        for subscription in self.subscribes_to:
            if subscription.stream_type == streams.stream_type(stream):
                return subscription
        raise LookupError(f"{self.name} does not subscribe to {stream}")
