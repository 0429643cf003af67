"""PostgreSQL's part of the status: the outbox, the relay's lease, sagas, and the newest events."""

from collections.abc import Sequence
from time import monotonic, time
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from operations_server.status.statements import BACKLOG, FIND_START, OUTBOX, SAGA_HOLDERS
from operations_server.status.states import Checkpoint, OutboxState, SagaState
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.saga_reader import SagaReader
from runtime.grpc.clock_check import MAX_OFFSET
from runtime.postgres import autocommit

MAX_PENDING = 100_000
"""Pending events that are counted; counting this many takes some 10 ms."""
MAX_BACKLOG = 10_000
"""Events that are read to count exactly the events that projections lack."""
SLACK = 1_000
"""Positions below the start of a backlog that are read, too: a transaction may commit after later ones."""


class WriteModel:
    """Reads PostgreSQL.

    Args:
        database: in the role of the operations server, with short time-outs.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._engine = autocommit(database)
        self._began_at = monotonic()
        self._sagas, self._feeds = SagaReader(database), FeedReader(database)

    async def read_outbox(self) -> OutboxState:
        start = monotonic()
        ((row,), tolerance) = await self._fetch(OUTBOX.format(max_pending=MAX_PENDING)), monotonic() - start
        return OutboxState(
            read_at=row["read_at"],
            incarnation=row["incarnation"],
            epoch=row["epoch"],
            sequence=row["sequence"],
            leader=row["leader"],
            pending=row["pending"],
            oldest_age=None if row["oldest_age"] is None else max(0.0, float(row["oldest_age"])),
            in_recovery=row["in_recovery"],
            clock_offset=compute_certain_offset(float(row["now"]), tolerance),
            # A process that has just started seals what is late in its first round.
            seal_age=min(max(0.0, float(row["seal_age"] or 0.0)), monotonic() - self._began_at),
            description=f"PostgreSQL {row['version']}" + (", a standby" if row["in_recovery"] else ""),
        )

    async def read_backlog(
        self, checkpoints: Sequence[Checkpoint], state: OutboxState
    ) -> Sequence[tuple[str, int | None, str, float]]:
        """Return the committed events after the earliest of some checkpoints, at most MAX_BACKLOG.

        Args:
            checkpoints: of projections.
            state: read at the same time as the checkpoints; later events are left out.

        Returns:
            In order of their positions: the epoch, the sequence (None if it is pending), the stream, and the
            seconds from its record to `state.read_at`.
        """
        earliest: dict[str, int] = {}
        for epoch, sequence in checkpoints:
            if is_uuid(epoch):
                earliest[epoch] = min(sequence, earliest.get(epoch, sequence))
        starts = []
        for epoch, sequence in earliest.items():
            start = await self._fetch(FIND_START.format(slack=SLACK), epoch, sequence, state.epoch or None)
            starts.append(start[0]["low"])
        rows = await self._fetch(BACKLOG, min(starts, default=0), MAX_BACKLOG, state.read_at)
        return [(row["epoch"], row["sequence"], row["stream"], float(row["age"])) for row in rows]

    async def read_sagas(self) -> SagaState:
        holders = await self._fetch(SAGA_HOLDERS)
        return SagaState(
            counts=await self._sagas.count_open(),
            silent_targets=await self._sagas.read_silent_targets(),
            parked_streams=await self._feeds.count_parked_streams(),
            holders={(row["contexts"], row["partition"]): row["holder"] for row in holders},
        )

    async def _fetch(self, statement: str, *parameters: Any) -> Sequence[Any]:
        async with self._engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                rows: Sequence[Any] = await driver.fetch(statement, *parameters)
            except BaseException:
                # The pool does not see the driver's errors, and would keep a dead connection.
                await connection.invalidate()
                raise
            return rows


def is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def compute_certain_offset(server_time: float, round_trip: float) -> float:
    """Return the seconds by which this machine's clock is ahead of a server's; 0 if it may be right.

    Args:
        server_time: seconds since 1970, at any moment of the round trip.
        round_trip: seconds.
    """
    offset = time() - round_trip / 2 - server_time
    return offset if abs(offset) - round_trip / 2 > MAX_OFFSET else 0.0
