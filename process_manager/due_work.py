"""What has to be done for sagas now, and how far they have heard."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_

from process_manager.schema import STEPS, TIMERS

Checkpoint = tuple[str, int]
"""An epoch of the stream and a sequence in it."""
NO_CHECKPOINT: Checkpoint = ("", 0)


class CheckpointConflict(Exception):
    """Another manager was first: what this one knew no longer holds."""


@dataclass(frozen=True, slots=True)
class DueStep:
    """A step to send, with what its caller needs to know."""

    saga: str
    id: str
    step: str
    attempt: int
    method: str
    request: bytes
    tries: int
    correlation_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that has run out."""

    saga: str
    id: str
    name: str
    due_at: datetime


def is_step(step: DueStep) -> ColumnElement[bool]:
    """Return what holds of a step's row."""
    return and_(
        STEPS.c.saga == step.saga,
        STEPS.c.id == step.id,
        STEPS.c.step == step.step,
        STEPS.c.attempt == step.attempt,
    )


def is_timer(timer: DueTimer) -> ColumnElement[bool]:
    """Return what holds of a timer's row, unless it was set anew."""
    return and_(
        TIMERS.c.saga == timer.saga,
        TIMERS.c.id == timer.id,
        TIMERS.c.name == timer.name,
        TIMERS.c.due_at == timer.due_at,
    )
