"""The states of the parts of the system, from which messages and metrics are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from process_manager.queries.saga_records import SagaCounts, SilentTarget

Checkpoint = tuple[str, int]
"""The epoch of a stream, and a sequence in it."""


@dataclass(frozen=True, slots=True)
class OutboxState:
    """The outbox and the relay's state, at one moment of PostgreSQL's clock."""

    read_at: datetime
    incarnation: str
    epoch: str
    """Of the JetStream stream; empty before the first."""
    sequence: int
    """The last sequence that is marked."""
    leader: str
    """The relay that leads; empty if none does."""
    pending: int
    oldest_age: float | None
    """Seconds since the oldest pending event was recorded."""
    in_recovery: bool
    """Whether PostgreSQL is a standby, which takes no writes."""
    clock_offset: float
    """Seconds by which this machine's clock is certainly ahead of PostgreSQL's; 0 if it may be right."""
    description: str
    seal_age: float = 0.0
    """Seconds since the time up to which all records are under a checkpoint."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """The JetStream stream; without an epoch there is none."""

    epoch: str
    last_sequence: int
    complete: bool
    intact: bool
    description: str


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """The state of a projection in Redis, in one generation."""

    error: str = ""
    ready: str = ""
    """The incarnation whose events the views include; empty if they cannot be queried."""
    checkpoints: Mapping[int, Checkpoint] = field(default_factory=dict)
    parked: int = 0
    archived: int = 0
    generation: str = ""
    code_changed: bool = False
    """Whether the projection has other code or protos than those that built it."""


@dataclass(frozen=True, slots=True)
class ReadModelState:
    """The state of Redis."""

    projections: Mapping[str, ProjectionState]
    holders: Mapping[str, Mapping[int, str]]
    """By context: the projectors that hold its partitions. Without an entry nobody does."""
    used_percent: int | None
    """Of maxmemory; None if there is no limit."""
    clock_offset: float
    """Seconds by which this machine's clock is certainly ahead of Redis's; 0 if it may be right."""
    description: str
    kept: Mapping[tuple[str, str], ProjectionState] = field(default_factory=dict)
    """By projection and generation: those that are kept beside the serving ones."""


@dataclass(frozen=True, slots=True)
class SagaState:
    """The state of sagas in PostgreSQL."""

    counts: Mapping[str, SagaCounts]
    silent_targets: list[SilentTarget]
    parked_streams: int
    holders: Mapping[tuple[str, int], str]
    """By group of contexts and partition."""

    def find_holders(self, context: str) -> Mapping[int, str]:
        """Return the process managers that hold the partitions of a context."""
        holders = self.holders.items()
        return {number: holder for (group, number), holder in holders if context in group.split(",")}


@dataclass(slots=True)
class Unapplied:
    """The committed events that a partition of a projection lacks."""

    events: int = 0
    """Those that are published."""
    oldest_age: float | None = None
    """Seconds since the oldest was recorded, published or not; None if there is none."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition of a projection."""

    holder: str
    unapplied: Unapplied
