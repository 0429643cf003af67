"""The outbox as the relay sees it: what is pending, what was published where, and how far the stream got.

What changes something compares the relay's state first, so that a relay whose time has passed (frozen, cut
off, replaced) changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_server.relay import statements
from contracts.envelope import RecordedEvent


class EpochSuperseded(Exception):
    """The relay's state is no longer what this relay took it for: another relay, or an operator, was here."""


@dataclass(frozen=True, slots=True)
class State:
    """What PostgreSQL knows of the stream."""

    incarnation: str
    """The database's: set anew when it was restored."""
    epoch: str
    """The stream that `sequence` refers to; empty before the first."""
    sequence: int
    """The last sequence that is marked in the outbox."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions were over at one moment."""

    oldest: int
    """Every transaction with a lower id is over, and its rows, if it has any, can be seen."""
    next: int
    """No transaction had this id yet, or a higher one."""


class Outbox:
    """The outbox, the events and the relay's state in PostgreSQL: one connection, for one task at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def state(self) -> State:
        """Return the relay's state."""
        ((incarnation, epoch, sequence),) = await self._rows(statements.STATE)
        return State(str(incarnation), str(epoch or ""), sequence)

    async def begin_epoch(self, state: State, epoch: str) -> State:
        """Record that sequences are those of another stream from now on, and none of them is marked.

        Raises:
            Superseded: the state is not `state`.
        """
        if not await self._rows(statements.BEGIN_EPOCH, *_columns(state), epoch):
            raise EpochSuperseded("another relay has begun an epoch")
        return State(state.incarnation, epoch, 0)

    async def mark(self, state: State, positions: Sequence[int], last: int) -> State:
        """Record that these events are what the stream holds from `state.sequence` + 1 to `last`.

        Raises:
            Superseded: the state is not `state`.
            ValueError: there are more sequences than events, or fewer.
        """
        sequences = range(state.sequence + 1, last + 1)
        if len(positions) != len(sequences):
            raise ValueError(f"{len(positions)} events after {state.sequence} do not reach {last}")
        if not await self._rows(statements.MARK, *_columns(state), last, positions, sequences):
            raise EpochSuperseded("another relay has marked events")
        return replace(state, sequence=last)

    async def pending(self, floor: int, limit: int) -> list[RecordedEvent]:
        """Return the pending events with positions above `floor`, lowest first."""
        return [_event(row) for row in await self._rows(statements.PENDING, floor, limit)]

    async def history(self, after: int, limit: int) -> tuple[int, list[RecordedEvent]]:
        """Return a stretch of all events, in order, without those that are pending.

        While nobody marks anything, which needs the current epoch, the stretches together are one snapshot:
        an event that is committed meanwhile is pending.

        Returns:
            The position that the stretch reaches to (`after` where there are no more), and its events.
        """
        rows = await self._rows(statements.HISTORY, after, limit)
        events = [_event(row) for row in rows if not row["exists"]]
        return rows[-1]["position"] if rows else after, events

    async def published(self, epoch: str, after: int) -> dict[int, int]:
        """Return sequence -> position of what an epoch's stream got after a sequence, in order."""
        return dict(await self._rows(statements.PUBLISHED, epoch, after))

    async def marked(self, epoch: str, positions: Sequence[int]) -> set[int]:
        """Return those of these positions that are marked as published to an epoch's stream."""
        return {row["position"] for row in await self._rows(statements.MARKED, epoch, positions)}

    async def events(self, positions: Sequence[int]) -> list[RecordedEvent]:
        """Return the events at these positions, in the order given."""
        return [_event(row) for row in await self._rows(statements.EVENTS, positions)]

    async def snapshot(self) -> Snapshot:
        """Return which transactions are over."""
        (row,) = await self._rows(statements.SNAPSHOT)
        return Snapshot(*row)

    async def count_pending(self) -> int:
        """Return how many events wait for being published."""
        ((count,),) = await self._rows(statements.COUNT)
        return int(count)

    async def prune(self, retention: float, limit: int) -> int:
        """Delete at most `limit` rows that were marked more than `retention` seconds ago; return how many."""
        ((count,),) = await self._rows(statements.PRUNE, retention, limit)
        return int(count)

    async def _rows(self, statement: str, *parameters: Any) -> Sequence[Any]:
        """Run a statement on asyncpg itself: SQLAlchemy's way costs more than most of these statements."""
        try:
            if self._connection is None:
                self._connection = await self._engine.connect()
            raw = await self._connection.get_raw_connection()
            driver: asyncpg.Connection[Any] = raw.driver_connection  # type: ignore[assignment]
            return await driver.fetch(statement, *parameters)
        except BaseException:
            await self._drop()  # it may be dead, or in the middle of something
            raise

    async def _drop(self) -> None:
        """Give the connection up; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()


def _columns(state: State) -> tuple[str, str | None, int]:
    return state.incarnation, state.epoch or None, state.sequence


def _event(row: Any) -> RecordedEvent:
    stream, version, kind, data, recorded_at, position, metadata, *_ = row
    return RecordedEvent(
        stream, version, kind, data, recorded_at, position, msgspec.json.decode(metadata, type=dict[str, str])
    )
