"""PostgreSQL as verify reads it: pages of streams, each page under one snapshot. Nothing is written."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.envelope import RecordedEvent
from operations.verify.sources import statements
from runtime.postgres import create_engine

PAGE = 500
"""Streams that are read, and held in memory with all their events, at once."""
REQUESTS = 5_000
"""Requests that are looked at in one statement."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stream's row in `streams`."""

    type: str
    version: int
    state: str | None
    state_version: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An outbox row; sequence 0 while it is pending."""

    epoch: str
    sequence: int


@dataclass(slots=True)
class Stream:
    """What PostgreSQL holds of one stream; there is a row, or events, or both."""

    name: str
    row: Row | None = None
    events: list[RecordedEvent] = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)
    """The outbox rows of its events, by position."""


class Store:
    """The event store, for reading alone; a standby does, too."""

    def __init__(self, database_url: str) -> None:
        self._engine: AsyncEngine = create_engine(
            database_url,
            session=statements.SESSION,
            pool_size=5,
            max_overflow=10,
            command_timeout=None,
            isolation_level="REPEATABLE READ",
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def rows(self, statement: str, **parameters: Any) -> Sequence[Any]:
        """Return what a statement answers."""
        async with self._reading() as connection:
            return (await connection.execute(text(statement), parameters)).all()

    async def joined(self, statement: str) -> Sequence[Any]:
        """Return what a statement answers that joins whole tables."""
        async with self._reading() as connection:
            await connection.execute(text("SET LOCAL enable_hashjoin = on"))
            return (await connection.execute(text(statement))).all()

    async def names(self, after: str = "", limit: int = PAGE) -> dict[str, int]:
        """Return the next streams in order of their names, with the version of their last event."""
        rows = await self.rows(statements.NAMES, after=after, limit=limit)
        return {row.name: row.version for row in rows}

    async def streams(self, names: Sequence[str]) -> dict[str, Stream]:
        """Return these streams, each as of one moment; nothing for those that do not exist."""
        found: dict[str, Stream] = {}
        async with self._reading() as connection:
            for name, *columns in await connection.execute(text(statements.STREAMS), {"names": names}):
                found[name] = Stream(name, Row(*columns))
            owners: dict[int, Stream] = {}
            for row in await connection.execute(text(statements.EVENTS), {"names": names}):
                event = recorded(row)
                owner = found.setdefault(event.stream, Stream(event.stream))
                owner.events.append(event)
                owners[event.position] = owner
            marks = await connection.execute(text(statements.MARKS), {"positions": list(owners)})
            for position, epoch, sequence in marks:
                owners[position].marks[position] = Mark(str(epoch or ""), sequence or 0)
        return found

    async def at(self, positions: Sequence[int]) -> dict[int, RecordedEvent]:
        """Return those of the events at these positions that exist."""
        rows = await self.rows(statements.EVENTS_AT, positions=positions)
        return {row.position: recorded(row) for row in rows}

    async def existing(self, names: Sequence[str]) -> set[str]:
        """Return those of the streams that have events."""
        return {name for (name,) in await self.rows(statements.EXISTING, names=names)}

    async def last_position(self) -> int:
        """Return the highest position of an event, 0 where there is none."""
        ((position,),) = await self.rows(statements.LAST_POSITION)
        return int(position or 0)

    async def receipts(self) -> AsyncIterator[Sequence[Any]]:
        """Yield the accepted requests in pages: caller, request id, how many versions of its receipt are
        missing, and one of them.
        """
        caller, request_id = "", "00000000-0000-0000-0000-000000000000"
        while True:
            page = await self.rows(statements.RECEIPTS, caller=caller, request_id=request_id, limit=REQUESTS)
            yield page
            if len(page) < REQUESTS:
                return
            caller, request_id = page[-1].caller, str(page[-1].request_id)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            yield connection


def recorded(row: Any) -> RecordedEvent:
    """Return the event of a row."""
    stream, version, kind, data, metadata, recorded_at, position = row
    return RecordedEvent(stream, version, kind, data, recorded_at, position, _metadata(metadata))


def _metadata(text: str) -> Mapping[str, str]:
    return msgspec.json.decode(text, type=dict[str, str])


def instant(moment: datetime) -> str:
    """Return a moment for people."""
    return moment.isoformat(timespec="milliseconds")
