"""The relay's access to PostgreSQL: pending events, marks, all recorded events, and the relay's state.

How it works. An outbox row is pending until it is marked with the epoch and the sequence of its message.
`relay_state` has one row: the incarnation of the database, the epoch of the current stream, and the last
marked sequence. What marks or begins an epoch compares that row with the caller's `RelayState` in the
statement that changes it. This is PostgreSQL's fence: a relay that was frozen, cut off or replaced holds an
old state, so it changes nothing and gets RelayStateChanged. Every statement commits by itself. After an error
or a cancellation the connection is discarded, because a statement may still be running on it.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_server.relay import statements
from command_server.relay.outbox_rows import (
    RelayState,
    TransactionSnapshot,
    decode_event,
    decode_page,
    decode_state,
    get_mark_parameters,
    get_state_columns,
)
from contracts.envelope import RecordedEvent

POSITIONS_PAGE_SIZE = 1_000
"""Positions at which events are read at once."""
MAX_READ_BYTES = 16 * 1024 * 1024
"""Event data per read; the event that reaches it is the last one."""


class RelayStateChanged(Exception):
    """The state in PostgreSQL is not the expected one: another relay or an operator has changed it."""


class Outbox:
    """The outbox, the events and the relay's state, on one connection. For one task at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        """asyncpg's connection under it."""

    async def read_state(self) -> RelayState:
        (row,) = await self._fetch(statements.STATE)
        return decode_state(row)

    async def begin_epoch(self, state: RelayState, epoch: str) -> RelayState:
        """Record the epoch of a new stream, with no event marked.

        Raises:
            RelayStateChanged: the state is not `state`.
        """
        if not await self._fetch(statements.BEGIN_EPOCH, *get_state_columns(state), epoch):
            raise RelayStateChanged("another relay has begun an epoch")
        return RelayState(state.incarnation, epoch, 0)

    async def mark(self, state: RelayState, positions: Sequence[int | None], last: int) -> RelayState:
        """Mark events as published at the sequences from `state.sequence` + 1 to `last`.

        Args:
            state: the expected state.
            positions: the events' positions, in order of their sequences; None for each foreign message.
            last: the sequence of the last message.

        Raises:
            RelayStateChanged: the state is not `state`.
            ValueError: the numbers of positions and sequences differ.
        """
        if not await self._fetch(statements.MARK, *get_mark_parameters(state, positions, last)):
            raise RelayStateChanged("another relay has marked events")
        return replace(state, sequence=last)

    async def sync_marks(self, state: RelayState) -> None:
        """Make all marks durable, as those of `mark` are already and those of `mark_and_read` are not.

        Raises:
            RelayStateChanged: the state is not `state`.
        """
        if not await self._fetch(statements.SYNC_MARKS, *get_state_columns(state)):
            raise RelayStateChanged("another relay has marked events")

    async def mark_and_read(
        self, state: RelayState, positions: Sequence[int], last: int, floor: int, limit: int
    ) -> tuple[RelayState, list[RecordedEvent], bool]:
        """Mark events as `mark` does, and return the other pending ones as `read_pending` does.

        A crash of PostgreSQL may lose these marks until `sync_marks` or `mark` returns.

        Returns:
            The new state, the events, and whether there may be more.

        Raises:
            RelayStateChanged: the state is not `state`.
        """
        marks = get_mark_parameters(state, positions, last)
        rows = await self._fetch(statements.MARK_AND_READ, *marks, floor, limit, MAX_READ_BYTES)
        if not rows:
            raise RelayStateChanged("another relay has marked events")
        pending = decode_page(rows if rows[0]["position"] else (), limit, MAX_READ_BYTES)
        return replace(state, sequence=last), *pending

    async def read_pending(self, floor: int, limit: int) -> tuple[list[RecordedEvent], bool]:
        """Return pending events with positions above `floor`, lowest first.

        Args:
            floor: a position.
            limit: the maximum number of events.

        Returns:
            The events, up to the one that reaches MAX_READ_BYTES, and whether there may be more.
        """
        rows = await self._fetch(statements.PENDING, floor, limit, MAX_READ_BYTES)
        return decode_page(rows, limit, MAX_READ_BYTES)

    async def read_history(self, after: int, limit: int) -> tuple[int, list[RecordedEvent]]:
        """Return one page of all recorded events in order, without the pending ones.

        Pages form one consistent snapshot as long as nothing is marked, since an event that commits between
        two pages is pending. Only a relay with the current epoch can mark.

        Returns:
            The last position of the page (`after` if there are no more events), and the page's events.
        """
        rows = await self._fetch(statements.HISTORY, after, limit, MAX_READ_BYTES)
        events = [decode_event(row) for row in rows if not row["exists"]]
        return rows[-1]["position"] if rows else after, events

    async def read_published_positions(self, epoch: str, after: int) -> dict[int, int]:
        """Return sequence -> position of the events marked with this epoch after a sequence, in order."""
        return dict(await self._fetch(statements.PUBLISHED, epoch, after))

    async def find_marked(self, epoch: str, positions: Sequence[int]) -> set[int]:
        """Return the positions among these that are marked with this epoch."""
        return {row["position"] for row in await self._fetch(statements.MARKED, epoch, positions)}

    async def read_events(self, positions: Sequence[int]) -> AsyncIterator[list[RecordedEvent]]:
        """Yield the events at these positions, in this order, in pages of some MAX_READ_BYTES."""
        start = 0
        while start < len(positions):
            page = positions[start : start + POSITIONS_PAGE_SIZE]
            events = [decode_event(row) for row in await self._fetch(statements.EVENTS, page, MAX_READ_BYTES)]
            is_full = sum(len(event.data) for event in events) >= MAX_READ_BYTES
            start += page.index(events[-1].position) + 1 if is_full else len(page)
            yield events

    async def read_state_and_snapshot(self) -> tuple[RelayState, TransactionSnapshot]:
        (row,) = await self._fetch(statements.STATE_AND_SNAPSHOT)
        return decode_state(row), TransactionSnapshot(*row[3:])

    async def read_last_position(self) -> int:
        """Return the highest position of all committed events that are in the outbox."""
        ((position,),) = await self._fetch(statements.LAST_POSITION)
        return int(position)

    async def count_pending(self) -> int:
        ((count,),) = await self._fetch(statements.COUNT)
        return int(count)

    async def prune(self, retention: float, limit: int) -> int:
        """Delete at most `limit` rows that were marked more than `retention` seconds ago.

        Returns:
            The number of deleted rows.
        """
        ((count,),) = await self._fetch(statements.PRUNE, retention, limit)
        return int(count)

    async def _fetch(self, statement: str, *parameters: Any) -> Sequence[Any]:
        """Run a statement on asyncpg directly; SQLAlchemy costs more than most of these statements."""
        try:
            if self._driver is None:
                self._connection = await self._engine.connect()
                raw = await self._connection.get_raw_connection()
                self._driver = raw.driver_connection
            rows: Sequence[Any] = await self._driver.fetch(statement, *parameters)
            return rows
        except BaseException:
            await self._discard_connection()  # it may be dead, or a statement may still run on it
            raise

    async def _discard_connection(self) -> None:
        """Close the connection; the next statement opens another."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._discard_connection()
