"""What the runner needs from the outside: a feed of events, a store of views, a share of the partitions."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from contracts.envelope import RecordedEvent
from projector.records import Parked, Record, Update
from runtime.jetstream import Message, StreamIdentity


class BuildSuperseded(Exception):
    """What this projector knew of the store no longer holds: read it again, and go on from there."""


class Reader(Protocol):
    """Messages of some partitions, each partition's in order."""

    async def batch(self, limit: int, wait: float) -> Sequence[Message]:
        """Return the next messages: as soon as there are any, none after `wait` seconds without.

        Raises:
            ReaderLost: messages may be missing from here on.
        """

    async def drained(self) -> frozenset[int]:
        """Ask the server for the partitions of which it holds nothing that was not returned here."""

    async def close(self) -> None:
        """Give the reader up."""


class Feed(Protocol):
    """The events that a projection hears, in JetStream."""

    async def identity(self) -> StreamIdentity | None:
        """Return which stream it is now, and what it holds; None where there is none (yet)."""

    async def open(self, epoch: str, starts: Mapping[int, int]) -> Reader:
        """Return a reader of these partitions, each from its sequence on.

        Raises:
            ReaderLost: the stream is not of this epoch any more.
        """

    def event_of(self, message: Message) -> RecordedEvent | None:
        """Return the event of a message; None where it has none that the projection hears."""

    async def history(self, stream: str) -> Sequence[RecordedEvent]:
        """Return all events of one aggregate that the feed holds, oldest first."""


@dataclass(frozen=True, slots=True)
class Build:
    """The state that all views of a projection are in: for which database, and how far."""

    incarnation: str
    checkpoints: Mapping[int, str]
    """Partition to `<epoch>/<sequence>`, for every partition."""


Advances = Mapping[int, tuple[str, str]]
"""Partition to its progress before and after, `<epoch>/<sequence>`."""
NO_PARTITIONS: Mapping[int, Any] = {}
"""No moves."""


class Store(Protocol):
    """The views of one projection, in Redis. Every write compares the filling that was read last."""

    async def read_build(self) -> Build | None:
        """Read and return the filling; None where a new one has to be begun."""

    async def begin_build(self, incarnation: str, epoch: str) -> None:
        """Wipe the projection and begin another filling, unless somebody else has begun one meanwhile."""

    async def load(self, view_ids: Iterable[str]) -> Mapping[str, Record]:
        """Return these views, by id; an empty record of version 0 for each that is not there."""

    async def write(
        self,
        updates: Sequence[Update],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> set[str]:
        """Write views that are still as they were before; return the ids of the others.

        Whatever is derived from a view is written with it. If all of them were, progress moves in the same
        step, as `advance` does.

        Raises:
            Superseded: another filling has begun, or progress is not what it was; nothing is written.
        """

    async def advance(self, advances: Advances, as_of: Mapping[int, int]) -> None:
        """Set partitions' progress from one value to the next, in all of them or in none.

        Args:
            moves: from where to where.
            as_of: partition to the time, in milliseconds since 1970, up to which the views hold all that was
                published in it. Once every partition has one, the projection is present.

        Raises:
            Superseded: another filling has begun, or progress is not what it was.
        """

    async def parked(self) -> Mapping[str, Parked]:
        """Return the list of the parked aggregates, by view id."""

    async def unlist(self, view_id: str) -> None:
        """Take an aggregate off the list of the parked ones, unless its view says that it is parked."""


class Leases(Protocol):
    """This process's share of the partitions."""

    @property
    def held(self) -> frozenset[int]:
        """The partitions to work on, as of now."""

    def pinned(self) -> AbstractContextManager[frozenset[int]]:
        """Return the partitions held now; none of them is given to another process within the context."""
