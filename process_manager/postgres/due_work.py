"""Due steps and timers, and the feeds of sagas with their checkpoints in the event stream."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_

from process_manager.postgres.schema import STEPS

Checkpoint = tuple[str, int]
"""An epoch of the JetStream stream, and the last sequence in it that the sagas have processed."""
NO_CHECKPOINT: Checkpoint = ("", 0)


@dataclass(frozen=True, slots=True)
class Feed:
    """The events of one type of stream in one partition, as one saga consumes them."""

    saga: str
    stream_type: str
    partition: int


class CheckpointConflict(Exception):
    """Another manager has advanced the checkpoint."""


@dataclass(frozen=True, slots=True)
class DueStep:
    """A step to send, with the metadata of its call."""

    saga: str
    id: str
    step: str
    attempt: int
    method: str
    request: bytes
    tries: int
    denied: bool
    """Whether the last try was denied."""
    correlation_id: str
    traceparent: str | None
    waiting_since: datetime | None = None
    """Since its saga began or, once it was tried, since it was due again; the longest waits end first."""
    causation_id: str = ""
    began_traceparent: str | None = None
    """The trace context of the first event of its saga."""


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that has expired."""

    saga: str
    id: str
    name: str
    due_at: datetime


def list_instances(timers: Iterable[DueTimer]) -> list[str]:
    """Return the instances of timers, as the statements that read due timers compare them."""
    return [f"{timer.saga}/{timer.id}" for timer in timers]


def matches_step(step: DueStep) -> ColumnElement[bool]:
    """Return the condition that selects a step's row."""
    return and_(
        STEPS.c.saga == step.saga,
        STEPS.c.id == step.id,
        STEPS.c.step == step.step,
        STEPS.c.attempt == step.attempt,
    )
