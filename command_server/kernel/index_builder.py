"""Builds an event index from the event store, up to a position and without gaps.

How it works. Positions are taken before the commit, so an event may appear below one that is committed
already. The builder therefore reads the newest position, waits until every transaction that was writing at
that moment has ended, and only then reads the events up to that position: none can be added to them any more.
It reads windows of positions, so that each statement is short, and adds the entries of each window together
with the new progress, by compare-and-set. Several servers may build at once: the one that loses a window
reads the progress again. All callers of a process share one build.

An event that this code cannot read has no entries. It is reported, since a rule then decides without it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from command_server.kernel.context import AggregateType
from command_server.kernel.event_index import EventIndex
from command_server.kernel.fold import fill_read
from command_server.kernel.index_ports import IndexStore, PositionedEvent
from command_server.kernel.ports import StoreConflict, StoreFailed, StoreUnavailable

WINDOW = 20_000
"""Positions of a window: some 20 ms where no event has a key."""
MAX_EVENTS = 500
"""Events with keys that are read at once."""
MAX_HISTORY = 50
"""Events of a stream up to which its history is read together with those of other streams."""
CHUNK_SIZE = 250
FOLLOW_PAUSE = 0.02
"""Seconds after which the progress is read again while another server builds the index."""


class IndexBuilder:
    """Builds one index.

    Args:
        store: the events and the entries.
        index: the declaration.
        aggregate: the codecs of its events.
        on_unreadable: called with the stream, the version and the error of an event that cannot be read.
    """

    def __init__(
        self,
        store: IndexStore,
        index: EventIndex,
        aggregate: AggregateType,
        on_unreadable: Callable[[str, int, Exception], None],
    ) -> None:
        self._store = store
        self._index = index
        self._aggregate = aggregate
        self._types = [name for event in index.events for name in aggregate.list_versions(event)]
        self._on_unreadable = on_unreadable
        self._build_task: asyncio.Task[int] | None = None

    async def build_to(self, position: int) -> None:
        """Return once the index is built up to the position of this committed event.

        Raises:
            StoreConflict: the event is gone, for instance after a failover with loss.
        """
        for _ in range(2):  # the first build may have begun before the event was committed
            if self._build_task is None or self._build_task.done():
                self._build_task = asyncio.create_task(self._build())
                # Its error goes to those that wait; without them it would be reported as one nobody has seen.
                self._build_task.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Callers share the build: one that leaves does not end it.
            if await asyncio.shield(self._build_task) >= position:
                return
        raise StoreConflict(f"no event at position {position} or above")

    def close(self) -> None:
        """Stop. The index keeps the entries that it has."""
        if self._build_task is not None:
            self._build_task.cancel()

    async def fold(self, stream: str, version: int) -> Any | None:
        """Return the state of a stream at a version; None if it does not have that version."""
        state, folded = self._aggregate.initial, 0
        while folded < version:
            events = await self._store.read_chunk(stream, folded, min(CHUNK_SIZE, version - folded))
            if not events:
                return None
            state, folded = self._aggregate.fold(state, events), folded + len(events)
        return state

    async def _build(self) -> int:
        """Build the index up to the newest event, and return that event's position."""
        name = self._index.name
        newest = await self._store.find_newest_position()
        await self._store.await_writers()
        after = await self._store.read_progress(name)
        while after < newest:
            until = min(newest, after + WINDOW)
            events = await self._store.read_positions(self._types, after, until, MAX_EVENTS)
            if len(events) == MAX_EVENTS or fill_read(event.stored for event in events):
                until = events[-1].position
            entries = await self._derive_entries(events)
            if await self._store.add_entries(name, entries, after, until):
                after = until
            else:
                await asyncio.sleep(FOLLOW_PAUSE)
                after = await self._store.read_progress(name)
        return newest

    async def _derive_entries(self, events: Sequence[PositionedEvent]) -> list[tuple[str, int]]:
        short = {event.stream: event.version for event in events if 1 < event.version <= MAX_HISTORY}
        histories = await self._store.read_histories(short) if short else {}
        entries: dict[tuple[str, int], None] = {}
        for event in events:
            try:
                if event.version == 1:
                    state = self._aggregate.fold(self._aggregate.initial, [event.stored])
                elif event.version <= MAX_HISTORY:
                    history = histories[event.stream][: event.version]
                    state = self._aggregate.fold(self._aggregate.initial, history)
                else:
                    state = await self.fold(event.stream, event.version)
                keys = self._index.keys(self._aggregate.decode(event.stored), state)
            except (StoreConflict, StoreFailed, StoreUnavailable):
                raise
            except Exception as error:  # an event of one stream must not stop the index of all others
                self._on_unreadable(event.stream, event.version, error)
                continue
            entries.update(dict.fromkeys((key, event.position) for key in keys))
        return list(entries)
