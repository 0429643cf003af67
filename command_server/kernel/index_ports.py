"""The port of the event index: the positions of events, and the entries that find them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from command_server.kernel.event_index import IndexEntry
from command_server.kernel.ports import StoredEvent


class PositionedEvent(msgspec.Struct, frozen=True, gc=False):
    """A stored event with its position among all events."""

    position: int
    stream: str
    version: int
    type: str
    data: bytes

    @property
    def stored(self) -> StoredEvent:
        return StoredEvent(self.type, self.data)


@dataclass(frozen=True, slots=True)
class Origin:
    """The first event of a stream, and the position up to which an index is built."""

    position: int
    recorded_at: datetime
    built_to: int


class IndexStore(Protocol):
    """Reads events by position, and keeps the entries of indexes.

    Each method raises StoreConflict or StoreUnavailable where a repetition makes sense.
    """

    async def find_origin(self, stream: str, index: str) -> Origin | None:
        """Return the first event of a stream; None if the stream does not exist."""

    async def find_newest_position(self) -> int:
        """Return the highest position of a committed event; 0 if there is none."""

    async def await_writers(self) -> None:
        """Return once each transaction that is writing events now has ended.

        Then no event is missing below the position of an event that was committed before the call.
        """

    async def read_progress(self, index: str) -> int:
        """Return the position up to which an index is built; 0 if it is new."""

    async def read_positions(
        self, types: Sequence[str], after: int, until: int, limit: int
    ) -> Sequence[PositionedEvent]:
        """Return the events of these types with positions above `after` and up to `until`, in order.

        They end with the event that reaches MAX_READ_BYTES, or with the number `limit`.
        """

    async def read_histories(self, versions: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        """Return the events of streams up to these versions, in order, by stream."""

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]:
        """As `ports.EventStore.read_chunk`."""

    async def add_entries(
        self, index: str, entries: Sequence[tuple[str, int]], after: int, built_to: int
    ) -> bool:
        """Add entries, and advance the index; return False, with no effect, if it is not at `after` any more.

        Args:
            index: its name.
            entries: pairs of a key and the position of an event.
            after: the position up to which the index was built.
            built_to: the position up to which it is built with these entries.
        """

    async def read_entries(
        self, index: str, limits: Mapping[str, int], before: int
    ) -> Mapping[str, Sequence[IndexEntry]]:
        """Return the entries below a position for each key, the latest first, up to the key's limit."""
