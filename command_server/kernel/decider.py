"""The vocabulary that a domain is written in: aggregates, deciders, and the rejection of a command.

An aggregate is an initial state and `evolve(state, event) -> state`; a decider is
`decide(command, state, now) -> events`. All are pure: time and identity come in as data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, get_args

S = TypeVar("S")


class RejectionKind(StrEnum):
    """What a rejected command ran into; it decides the gRPC status."""

    RULE = "rule"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    VERSION = "version"
    """Its expected version is not the stream's."""


class Rejected(Exception):
    """A rule rejects a command, which then changes nothing.

    Args:
        reason: UPPER_SNAKE_CASE, for people and programs; each rule has its own.
        details: the facts that the rule was applied to.
    """

    kind = RejectionKind.RULE

    def __init__(self, reason: str, **details: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = {key: str(value) for key, value in details.items()}


class NotFound(Rejected):
    """A command is for something that does not exist."""

    kind = RejectionKind.NOT_FOUND


class AlreadyExists(Rejected):
    """A command creates something that exists already."""

    kind = RejectionKind.ALREADY_EXISTS


@dataclass(frozen=True)
class Aggregate:
    """What a stream's events mean: a fold from an initial state."""

    stream_type: str
    """`<context>.<aggregate>`, for instance `ordering.order`; the prefix of its streams' names."""
    initial: Any
    evolve: Callable[[Any, Any], Any]
    events: tuple[type, ...]

    def stream(self, aggregate_id: str) -> str:
        """Return the name of one aggregate's stream."""
        return f"{self.stream_type}.{aggregate_id}"


def no_related_streams(_command: Any, _states: Mapping[str, Any]) -> Sequence[str]:
    """Return no streams."""
    return ()


@dataclass(frozen=True)
class Decider:
    """Which streams a command is about, and what happens to each of them.

    All streams of a command commit together or not at all. The first is the one that the command is for:
    its id and version stand in the receipt, and an expected version refers to it.

    A command class may have a field `caller`, which requests do not have: the subject of the caller's token.
    """

    commands: tuple[type, ...]
    aggregates: tuple[Aggregate, ...]
    key: str
    """The command field that holds the id of the first stream; where a request leaves it empty, the
    server makes the id."""
    streams: Callable[[Any], Sequence[str]]
    decide: Callable[[Any, Mapping[str, Any], datetime], Mapping[str, Sequence[Any]]]
    related_streams: Callable[[Any, Mapping[str, Any]], Sequence[str]] = no_related_streams
    """Which streams a command is about besides, as the states of its `streams` tell: what was reserved knows
    of what, so the command that releases it need not say. None where the states are not those it expects."""


def members(union: object) -> tuple[type, ...]:
    """Return the classes of a union of classes, or of a single one."""
    return get_args(union) or (union,)


def one_stream(
    aggregate: Aggregate, commands: object, key: str, decide: Callable[[Any, S, datetime], Sequence[Any]]
) -> Decider:
    """Return the decider of commands that are each about one stream of one aggregate.

    Args:
        aggregate: whose state the commands are decided on.
        commands: a command class, or a union of them.
        key: the command field that holds the aggregate's id.
        decide: `(command, state, now) -> events`.
    """

    def streams(command: Any) -> Sequence[str]:
        return (aggregate.stream(getattr(command, key)),)

    def decide_one(command: Any, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
        ((stream, state),) = states.items()
        return {stream: decide(command, state, now)}

    return Decider(members(commands), (aggregate,), key, streams, decide_one)
