"""The ports of the runner: the event feed, the store of the views, and the partition leases."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from contracts.envelope import RecordedEvent
from projector.records import Parked, Record, Update
from runtime.jetstream import EventMessage, StreamCheck, StreamIdentity


class BuildSuperseded(Exception):
    """The build, a checkpoint or the stream has changed; the session has to start again from the store."""


class EventReader(Protocol):
    """Reads the messages of some partitions, each partition's in order."""

    async def read_batch(self, limit: int, max_wait: float) -> Sequence[EventMessage]:
        """Return the next messages; none if none arrives within `max_wait` seconds, or a check was made.

        Raises:
            ReaderLost: the reader may have missed messages.
        """

    def reads_apart(self) -> bool:
        """Return whether the reader is behind, while other projections have caught up and get messages."""

    def read_positions(self) -> Mapping[int, int]:
        """Return for each partition a sequence up to which all of its messages were returned."""

    async def close(self) -> None: ...


class AggregateReader(Protocol):
    """Reads the events of one aggregate from its own subject."""

    async def seek(self, version: int) -> None:
        """Continue at an event before which no version is this or a later one."""

    async def read_batch(self) -> Sequence[RecordedEvent] | None:
        """Return the next events; None if no message follows, as far as the answering server knows."""

    async def has_ended(self) -> bool:
        """Return whether all messages of the aggregate have been read, the latest included."""


class EventFeed(Protocol):
    """The events of a projection's source streams, in JetStream."""

    async def read_identity(self) -> StreamIdentity | None:
        """Return the JetStream stream's identity and extent; None if the stream does not exist."""

    async def open(self, epoch: str, starts: Mapping[int, int]) -> EventReader:
        """Return a reader of these partitions, each from its start sequence on.

        Raises:
            ReaderLost: the stream has another epoch, or does not exist.
        """

    def get_check(self) -> StreamCheck | None:
        """Return the last check of the stream, which is made for all projections; None before the first."""

    async def request_removed_events(self) -> bool:
        """Ask for a stream with all events, if housekeeping has removed some from this one.

        Returns:
            Whether the stream lacks events that it will have: it is recreated, or being filled.
        """

    def open_aggregate(self, stream: str) -> AggregateReader:
        """Return a reader of one aggregate's events, from the first on."""


@dataclass(frozen=True, slots=True)
class Build:
    """The build that all views of a projection belong to."""

    incarnation: str
    """The database incarnation that the events come from."""
    checkpoints: Mapping[int, str]
    """Partition to `<epoch>/<sequence>`, for every partition."""
    as_of: Mapping[int, int] = field(default_factory=dict)
    """Partition to the time up to which the views include all committed events; 0 or missing if unknown."""

    @property
    def positions(self) -> list[tuple[str, int]]:
        """The epoch and the sequence of every checkpoint; 0 for a sequence that cannot be read."""
        parts = (checkpoint.partition("/") for checkpoint in self.checkpoints.values())
        return [(epoch, int(sequence) if sequence.isdecimal() else 0) for epoch, _, sequence in parts]


Advances = Mapping[int, tuple[str, str]]
"""Partition to its expected and its new checkpoint, `<epoch>/<sequence>` both."""
NO_PARTITIONS: Mapping[int, Any] = {}
"""The empty `Advances` or `as_of`."""


class Store(Protocol):
    """The views of one projection. Every write compares the build that the store has read last."""

    async def read_build(self) -> Build | None:
        """Read and return the build; None if a new one has to begin."""

    async def begin_build(self, incarnation: str, epoch: str) -> None:
        """Clear the projection and begin a new build, unless another projector has begun one meanwhile."""

    async def load(self, view_ids: Iterable[str]) -> Mapping[str, Record]:
        """Return these views, by id; an empty record of version 0 for each that does not exist."""

    async def write(
        self,
        updates: Sequence[Update],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> set[str]:
        """Write the views whose version and revision are unchanged; return the ids of all other views.

        Everything derived from a view is written with it. If there was no conflict, the checkpoints advance
        in the same call, as `advance` does.

        Raises:
            BuildSuperseded: another build has begun, or a checkpoint is not as expected. Nothing is written.
        """

    async def advance(self, advances: Advances, as_of: Mapping[int, int]) -> None:
        """Advance checkpoints, in all of the partitions or in none.

        Args:
            advances: the expected and the new checkpoints.
            as_of: partition to a time in milliseconds since 1970: the views include all events of the
                partition that were committed before; 0 if that is unknown, which replaces no known time. The
                projection is ready once every partition has a time.

        Raises:
            BuildSuperseded: another build has begun, or a checkpoint is not as expected.
        """

    async def load_parked(self) -> Mapping[str, Parked]:
        """Return the list of the parked aggregates, by view id."""

    async def restore_hash(self, view_id: str, version: int) -> None:
        """Replace a view's key of another type by a hash without the view.

        Args:
            view_id: the view's id. Nothing changes if its key is a hash, or missing.
            version: the version that the view had, unless the list of the parked aggregates has another one.

        Raises:
            BuildSuperseded: another build has begun.
        """

    async def unlist_parked(self, view_id: str) -> None:
        """Remove an aggregate from the list of the parked ones, unless its view is parked."""


class Leases(Protocol):
    """This process's share of the partitions."""

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are leased to this process and within its share."""

    def pin(self) -> AbstractContextManager[frozenset[int]]:
        """Pin `partitions`: no other process gets their leases while the context is open."""
