"""The outbox as the relay sees it: what is pending, what was published where, and how far the stream got.

Every method is one statement that commits by itself. Those that change something compare the relay's state
first, so that a relay whose time has passed (frozen, cut off, replaced) changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.envelope import RecordedEvent

_EVENT = "e.stream, e.version, e.type, e.data, e.recorded_at, e.position, CAST(e.metadata AS text)"

STATE = text("SELECT incarnation, epoch, sequence FROM relay_state WHERE id = 1")

_UNCHANGED = (
    "id = 1 AND incarnation = :incarnation AND epoch IS NOT DISTINCT FROM :epoch AND sequence = :sequence"
)

BEGIN_EPOCH = text(
    f"UPDATE relay_state SET epoch = :new_epoch, sequence = 0 WHERE {_UNCHANGED} RETURNING 1"  # noqa: S608
)

MARK = text(f"""
WITH state AS (
    UPDATE relay_state SET sequence = :new_sequence WHERE {_UNCHANGED} RETURNING epoch
), marked AS (
    UPDATE outbox SET epoch = state.epoch, sequence = m.sequence, published_at = now()
    FROM state, unnest(CAST(:positions AS bigint[]), CAST(:sequences AS bigint[])) AS m (position, sequence)
    WHERE outbox.position = m.position
)
SELECT epoch FROM state
""")  # noqa: S608 - built from the constants above

# Materialized, so that the plan begins with the few pending rows, however old the statistics are.
PENDING = text(f"""
WITH pending AS MATERIALIZED (
    SELECT position FROM outbox WHERE sequence IS NULL AND position > :floor ORDER BY position LIMIT :limit
)
SELECT {_EVENT} FROM pending JOIN events e USING (position) ORDER BY e.position
""")  # noqa: S608

HISTORY = text(f"""
SELECT {_EVENT},
       EXISTS (SELECT FROM outbox o WHERE o.position = e.position AND o.sequence IS NULL) AS pending
FROM events e WHERE e.position > :after ORDER BY e.position LIMIT :limit
""")  # noqa: S608

PUBLISHED = text("""
SELECT position, sequence FROM outbox WHERE epoch = :epoch AND sequence > :after ORDER BY sequence
""")

EVENTS = text(f"""
SELECT {_EVENT} FROM unnest(CAST(:positions AS bigint[])) WITH ORDINALITY AS wanted (position, nth)
JOIN events e USING (position) ORDER BY nth
""")  # noqa: S608

SNAPSHOT = text("""
SELECT CAST(CAST(pg_snapshot_xmin(s) AS text) AS bigint), CAST(CAST(pg_snapshot_xmax(s) AS text) AS bigint)
FROM pg_current_snapshot() s
""")

COUNT = text("SELECT count(*) FROM outbox WHERE sequence IS NULL")

PRUNE = text("""
DELETE FROM outbox WHERE position = ANY (ARRAY(
    SELECT position FROM outbox WHERE published_at < now() - make_interval(secs => :retention) LIMIT :limit))
""")


class Superseded(Exception):
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
    """The outbox, the events and the relay's state in PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def state(self) -> State:
        """Return the relay's state."""
        (row,) = await self._rows(STATE)
        return State(str(row.incarnation), str(row.epoch or ""), row.sequence)

    async def begin_epoch(self, state: State, epoch: str) -> State:
        """Record that sequences are those of another stream from now on, and none of them is marked.

        Raises:
            Superseded: the state is not `state`.
        """
        if not await self._rows(BEGIN_EPOCH, **_columns(state), new_epoch=epoch):
            raise Superseded("another relay has begun an epoch")
        return State(state.incarnation, epoch, 0)

    async def mark(self, state: State, positions: Sequence[int], last: int) -> State:
        """Record that these events are what the stream holds from `state.sequence` + 1 to `last`.

        Raises:
            Superseded: the state is not `state`.
            ValueError: there are more sequences than events, or fewer.
        """
        if len(positions) != last - state.sequence:
            raise ValueError(f"{len(positions)} events after {state.sequence} do not reach {last}")
        sequences = list(range(state.sequence + 1, last + 1))
        marked = await self._rows(
            MARK, **_columns(state), new_sequence=last, positions=list(positions), sequences=sequences
        )
        if not marked:
            raise Superseded("another relay has marked events")
        return replace(state, sequence=last)

    async def pending(self, floor: int, limit: int) -> list[RecordedEvent]:
        """Return the pending events with positions above `floor`, lowest first."""
        return [_event(row) for row in await self._rows(PENDING, floor=floor, limit=limit)]

    async def history(self, after: int, limit: int) -> tuple[int, list[RecordedEvent]]:
        """Return a stretch of all events, in order, without those that are pending.

        While nobody marks anything, which needs the current epoch, the stretches together are one snapshot:
        an event that is committed meanwhile is pending.

        Returns:
            The position that the stretch reaches to (`after` where there are no more), and its events.
        """
        rows = await self._rows(HISTORY, after=after, limit=limit)
        return rows[-1].position if rows else after, [_event(row) for row in rows if not row.pending]

    async def published(self, epoch: str, after: int) -> dict[int, int]:
        """Return sequence -> position of what an epoch's stream got after a sequence, in order."""
        return {row.sequence: row.position for row in await self._rows(PUBLISHED, epoch=epoch, after=after)}

    async def events(self, positions: Sequence[int]) -> list[RecordedEvent]:
        """Return the events at these positions, in the order given."""
        return [_event(row) for row in await self._rows(EVENTS, positions=list(positions))]

    async def snapshot(self) -> Snapshot:
        """Return which transactions are over."""
        (row,) = await self._rows(SNAPSHOT)
        return Snapshot(row[0], row[1])

    async def count_pending(self) -> int:
        """Return how many events wait for being published."""
        (row,) = await self._rows(COUNT)
        return int(row[0])

    async def prune(self, retention: float, limit: int) -> int:
        """Delete at most `limit` rows that were marked more than `retention` seconds ago; return how many."""
        async with self._engine.connect() as connection:
            result = await connection.execute(PRUNE, {"retention": retention, "limit": limit})
            return int(result.rowcount)

    async def reachable(self) -> bool:
        """Return whether PostgreSQL answers; raises what the driver does where it cannot be reached."""
        return len(await self._rows(STATE)) == 1

    async def _rows(self, statement: Any, **parameters: Any) -> Sequence[Any]:
        async with self._engine.connect() as connection:
            return (await connection.execute(statement, parameters)).all()


def _columns(state: State) -> dict[str, Any]:
    return {"incarnation": state.incarnation, "epoch": state.epoch or None, "sequence": state.sequence}


def _event(row: Any) -> RecordedEvent:
    stream, version, kind, data, recorded_at, position, metadata = row[:7]
    return RecordedEvent(
        stream, version, kind, data, recorded_at, position, msgspec.json.decode(metadata, type=dict[str, str])
    )
