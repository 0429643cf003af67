"""Records of sagas, their steps and their parked streams, as operators and queries read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # asyncpg would send datetime.max to PostgreSQL as infinity
"""Sort key of a saga without a due time; lists end with these sagas."""

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]
ListPosition = tuple[_Instant, _Instant, _Name, _Name]
"""A position in a list: due time (NEVER if it has none), when the instance began, its id, its saga."""


@dataclass(frozen=True, slots=True)
class SagaFilter:
    """Selects instances."""

    status: str = ""
    """Empty for all."""
    open_only: bool = False
    blocked_only: bool = False
    overdue_only: bool = False


@dataclass(frozen=True, slots=True)
class SentStep:
    """A step of a saga, with its outcome so far."""

    step: str
    attempt: int
    method: str
    request_id: UUID
    decided_at: datetime
    answered_at: datetime | None
    outcome: str | None
    tries: int
    error: str | None
    denied: bool
    causation_id: str | None
    """The id of the input that caused the step; None for a step of an earlier release."""


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """A recorded retry or abort."""

    action: str
    reason: str
    operator: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SagaRow:
    """A row of `sagas`."""

    saga: str
    id: str
    version: int
    other_streams: Mapping[str, Mapping[str, Any]]
    """Its positions in other streams than its own: `version` and `failed_input` by stream."""
    failed_input: str
    state: Mapping[str, Any]
    status: str
    ended: bool
    waiting_for: str
    """For people: the reply or event that the saga waits for; empty if it has ended."""
    blocked_reason: str
    began_at: datetime
    status_since: datetime
    due_at: datetime | None
    unreadable: bool = False
    """Whether the row cannot be read; `state` and `other_streams` are then empty."""

    @property
    def position(self) -> ListPosition:
        return self.due_at or NEVER, self.began_at, self.id, self.saga


@dataclass(frozen=True, slots=True)
class SagaDetails:
    """A saga with its steps, its timers and its operators' actions, each in chronological order."""

    row: SagaRow
    steps: Sequence[SentStep]
    timers: Mapping[str, datetime]
    operator_actions: Sequence[OperatorAction]


@dataclass(frozen=True, slots=True)
class ParkedStream:
    """A stream whose events wait, because one of them could not be assigned to an instance."""

    saga: str
    stream: str
    version: int
    """Of the first event that waits."""
    error: str
    since: datetime


@dataclass(frozen=True, slots=True)
class SagaCounts:
    """Numbers of instances that have not ended or cannot be read."""

    open: int
    overdue: int
    blocked: int
    denied: int
    """Those with a pending step that was denied for the process manager's token or scopes."""
    unreadable: int = 0
    """Those whose rows a manager could not read."""


@dataclass(frozen=True, slots=True)
class SilentTarget:
    """A gRPC service that does not answer steps."""

    target: str
    since: datetime
    error: str
    waiting: int
    """The number of steps without an answer from it."""
