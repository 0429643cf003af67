"""The vocabulary of the domain: aggregates, deciders, and rejections.

An aggregate is an initial state and `evolve(state, event) -> state`. A decider is
`decide(command, state, now) -> events`. Both are pure: time and identity are arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeVar, get_args

from command_server.kernel.event_index import Lookup

S = TypeVar("S")


class RejectionKind(StrEnum):
    """The kind of a rejection; determines the gRPC status."""

    RULE = "rule"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    VERSION = "version"
    """The command's expected version is not the stream's version."""


class Rejected(Exception):
    """A domain rule rejects the command. No event is recorded, but for those of `recording`.

    Args:
        reason: a code in UPPER_SNAKE_CASE, part of the API; one per rule.
        details: the values that the rule compared.
    """

    kind = RejectionKind.RULE

    def __init__(self, reason: str, **details: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = {key: str(value) for key, value in details.items()}
        self.events: Mapping[str, Sequence[Any]] = {}

    def recording(self, events: Mapping[str, Sequence[Any]]) -> Self:
        """Return the rejection with events by stream that it records, unlike others.

        They are what the attempt itself has caused, for instance a freeze. No event of the command is among
        them.
        """
        self.events = events
        return self


class NotFound(Rejected):
    """The command's aggregate does not exist."""

    kind = RejectionKind.NOT_FOUND


class AlreadyExists(Rejected):
    """The command creates an aggregate that exists already."""

    kind = RejectionKind.ALREADY_EXISTS


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """Stands for the value of a token that was not signed here, or whose key is revoked.

    It also stands for a unique value that is not one; its cause is the context's then.
    """

    cause: str
    """MALFORMED, UNKNOWN_KEY, REVOKED_KEY or WRONG_SIGNATURE."""


@dataclass(frozen=True, slots=True)
class UniqueValue:
    """A value that at most one aggregate may have, in its one form."""

    text: str
    ids: tuple[str, ...]
    """The ids that hide it, the one for new streams first; under each of them it may be taken."""


@dataclass(frozen=True)
class Aggregate:
    """A type of stream: its events and their fold from an initial state."""

    stream_type: str
    """`<context>.<aggregate>`, for instance `ordering.order`. Stream names begin with it."""
    initial: Any
    evolve: Callable[[Any, Any], Any]
    events: tuple[type, ...]
    snapshot_version: str | None = None
    """Identifies the fold in place of the fingerprint that is computed from its code. Change it whenever a
    stored state may differ from the fold of the same events."""
    subjects: Callable[[Any, str], Sequence[str]] | None = None
    """`subjects(state, aggregate id)`: the persons whose data a state holds. Aggregates have it whose
    events are about persons."""
    owner: str = ""
    """The attribute of the state with the id of the person to whom it belongs; empty if there is none."""

    def stream(self, aggregate_id: str) -> str:
        """Return the name of the stream with this id."""
        return f"{self.stream_type}.{aggregate_id}"


def no_related_streams(_command: Any, _states: Mapping[str, Any]) -> Sequence[str]:
    """Default of `Decider.related_streams`. The loader skips deciders that have it."""
    return ()


@dataclass(frozen=True)
class Decider:
    """The streams that a command affects, and the events that it adds to each.

    All streams of a command commit together or not at all. The first one is the command's target: the receipt
    contains its id and version, and `expected_version` refers to it.

    A command class may have fields that requests do not have: `caller`, the subject of the access token;
    `persons`, the subject and the person for whom it acts; `request_id`, the id of the request; `scopes`,
    what the caller may do; `earlier_events`, the result of the decider's lookup; `signed_values`, what the
    tokens among its fields say (`kernel/signed_values.py`); and `unique_values`, its values of which there
    may be one (`kernel/unique_values.py`).
    """

    commands: tuple[type, ...]
    aggregates: tuple[Aggregate, ...]
    key: str
    """The command field with the id of the first stream. The server generates an id if it is empty."""
    streams: Callable[[Any], Sequence[str]]
    """`streams(command)`: the names of the streams that the command itself identifies."""
    decide: Callable[[Any, Mapping[str, Any], datetime], Mapping[str, Sequence[Any]]]
    """`decide(command, states by stream, now)`: the new events by stream."""
    related_streams: Callable[[Any, Mapping[str, Any]], Sequence[str]] = no_related_streams
    """`related_streams(command, states)`: additional streams that the command affects, derived from the state
    of its first streams. A release, for example, also changes the stock that only the reservation's state
    names. Return none if the states do not allow the command."""
    lookup: Lookup | None = None
    """The events of other streams that the commands need; None if they need none."""
    owned_streams: Callable[[Any], Sequence[str]] | None = None
    """`owned_streams(command)`: the streams that must be of a caller who reaches its own objects alone; by
    default the first one. The streams of others do not exist for such a caller."""

    def list_owned_streams(self, command: Any) -> Sequence[str]:
        """Return the streams that must belong to the caller."""
        return (self.owned_streams or (lambda each: self.streams(each)[:1]))(command)


def members(union: object) -> tuple[type, ...]:
    """Return the classes of a union; a single class gives itself."""
    return get_args(union) or (union,)


def one_stream(
    aggregate: Aggregate, commands: object, key: str, decide: Callable[[Any, S, datetime], Sequence[Any]]
) -> Decider:
    """Return a decider for commands that each affect one stream of one aggregate.

    Args:
        aggregate: the type of the stream.
        commands: a command class, or a union of command classes.
        key: the command field with the aggregate's id.
        decide: `decide(command, state, now) -> events`.
    """

    def streams(command: Any) -> Sequence[str]:
        return (aggregate.stream(getattr(command, key)),)

    def decide_stream(command: Any, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
        ((stream, state),) = states.items()
        return {stream: decide(command, state, now)}

    return Decider(members(commands), (aggregate,), key, streams, decide_stream)
