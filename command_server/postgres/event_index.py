"""The event index on PostgreSQL, beside the event store and over its connections."""

import asyncio
from collections.abc import Mapping, Sequence

from command_server.kernel.event_index import IndexEntry
from command_server.kernel.index_ports import Origin, PositionedEvent
from command_server.kernel.ports import StoredEvent
from command_server.postgres import index_statements as statements
from command_server.postgres.event_store import PostgresEventStore, group_events

WRITERS_PAUSE = 0.005
"""Seconds between two looks at the transactions that are writing; a commit takes some milliseconds."""


class PostgresEventIndex:
    """An `IndexStore`.

    Args:
        store: the event store.
    """

    def __init__(self, store: PostgresEventStore) -> None:
        self._store = store
        self.read_chunk = store.read_chunk

    async def find_origin(self, stream: str, index: str) -> Origin | None:
        async with self._store.connect() as driver:
            row = await driver.fetchrow(statements.FIND_ORIGIN, stream, index)
        return None if row is None else Origin(*row)

    async def find_newest_position(self) -> int:
        async with self._store.connect() as driver:
            return int(await driver.fetchval(statements.FIND_NEWEST))

    async def await_writers(self) -> None:
        writers = await self._find_writers()
        while writers:
            await asyncio.sleep(WRITERS_PAUSE)
            writers &= await self._find_writers()

    async def _find_writers(self) -> set[str]:
        """Return the transactions that have written events, or are about to, and have not ended."""
        async with self._store.connect() as driver:
            return {row[0] for row in await driver.fetch(statements.FIND_WRITERS)}

    async def read_progress(self, index: str) -> int:
        async with self._store.connect() as driver:
            position = await driver.fetchval(statements.READ_PROGRESS, index)
            if position is None:
                await driver.execute(statements.BEGIN_INDEX, index)
        return position or 0

    async def read_positions(
        self, types: Sequence[str], after: int, until: int, limit: int
    ) -> Sequence[PositionedEvent]:
        async with self._store.connect() as driver:
            rows = await driver.fetch(statements.READ_POSITIONS, after, until, list(types), limit)
        streams, stored = [row[1] for row in rows], [StoredEvent(row[3], row[4]) for row in rows]
        events = await self._store.open_events(stored, streams)
        return [
            PositionedEvent(row[0], row[1], row[2], event.type, event.data)
            for row, event in zip(rows, events, strict=True)
        ]

    async def read_histories(self, versions: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
        async with self._store.connect() as driver:
            rows = await driver.fetch(statements.READ_HISTORIES, list(versions), list(versions.values()))
        return await group_events(rows, self._store.open_events)

    async def add_entries(
        self, index: str, entries: Sequence[tuple[str, int]], after: int, built_to: int
    ) -> bool:
        keys, positions = [key for key, _ in entries], [position for _, position in entries]
        async with self._store.connect() as driver:
            return bool(
                await driver.fetchval(statements.ADD_ENTRIES, index, after, built_to, keys, positions)
            )

    async def read_entries(
        self, index: str, limits: Mapping[str, int], before: int
    ) -> Mapping[str, Sequence[IndexEntry]]:
        async with self._store.connect() as driver:
            rows = await driver.fetch(
                statements.READ_ENTRIES, index, list(limits), list(limits.values()), before
            )
        entries: dict[str, list[IndexEntry]] = {key: [] for key in limits}
        for key, aggregate_id, recorded_at in rows:
            entries[key].append(IndexEntry(aggregate_id, recorded_at))
        return entries
