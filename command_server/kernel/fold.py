"""The fold of one long stream, and what folds it."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from command_server.kernel.context import AggregateType
from command_server.kernel.ports import MAX_READ_BYTES, StoredEvent, StoredSnapshot
from command_server.kernel.snapshot import FoldedState


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is folded at once."""

    chunk_size: int
    """Maximum number of events that are read at once. To receive them is a step of the event loop, too."""
    slice: float
    """Seconds of folding at once."""
    max_yield: float
    """Seconds that a fold yields to a busy event loop between two slices."""


BESIDE_COMMANDS = Pace(chunk_size=250, slice=0.00025, max_yield=0.005)
"""A command needs several iterations of the event loop; each may wait for one slice."""


@dataclass(slots=True)
class Fold:
    """The fold of one stream."""

    stream: str
    aggregate: AggregateType
    state: FoldedState
    target: int
    """The version at which the stream was, or later."""
    result: "asyncio.Future[FoldedState]"
    started_at: float = field(default_factory=perf_counter)
    read_version: int = -1
    """The version up to which events have been read; -1: not begun."""
    read_to_end: bool = False
    kept_version: int = 0
    failures: int = 0
    first_version: int = 0
    is_elsewhere: bool = False
    """Whether the helper folds the stream; the rest is folded here afterwards."""
    folded_elsewhere: int = 0
    """Events that the helper has folded."""

    @property
    def unread(self) -> int:
        """The number of events to read, at least."""
        return self.target - max(self.read_version, self.state.version)

    @property
    def folded(self) -> int:
        """The number of events that were folded."""
        return self.folded_elsewhere + self.state.version - self.first_version

    def note_read(self, events: Sequence[StoredEvent], most: int) -> None:
        """Record that these events have been read; a chunk has `most` events at most."""
        self.failures = 0
        self.read_version += len(events)
        self.read_to_end = len(events) < most and not fill_read(events)


def fill_read(events: Iterable[StoredEvent]) -> bool:
    """Return whether a read has ended with these events because of their size."""
    return sum(len(event.data) for event in events) >= MAX_READ_BYTES


class FoldStore(Protocol):
    """What a fold needs of the event store; see `ports.EventStore`."""

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]: ...

    async def read_snapshot(self, stream: str, fingerprint: str) -> StoredSnapshot | None: ...

    async def keep_snapshot(self, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None: ...


class FoldHelper(Protocol):
    """Folds streams off the event loop, and keeps their states in the store."""

    def takes(self, events: int) -> bool:
        """Return whether to fold a stream there if this many events had to be folded here otherwise."""

    async def fold(self, stream: str, version: int) -> int:
        """Fold a stream as far as possible, and keep its state.

        Args:
            stream: its name.
            version: its version, at least.

        Returns:
            The number of events that were folded: 0 if the helper has failed. It raises no error.
        """

    async def close(self) -> None:
        """Stop, and keep the states that were reached."""
