"""How far instances and feeds are, and the rows that are inspected. Read-only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import Checkpoint, DueTimer, Feed
from process_manager.postgres.progress_queries import FEED_PROGRESS, INSTANCE_PROGRESS, OPEN_INSTANCES
from process_manager.postgres.statement_session import StatementSession
from process_manager.queries.feed_reader import read_checkpoints
from runtime.postgres import autocommit


@dataclass(frozen=True)
class InstanceProgress:
    """How far an instance is."""

    version: int = 0
    """Of the last processed event of its own stream."""
    pending: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """By step and attempt without an answer: the method."""
    checkpoints: Mapping[Feed, Checkpoint] = field(default_factory=dict)
    """Those of all feeds of its saga, and perhaps of others."""


class FeedProgress(NamedTuple):
    """How far the feeds of some sagas are, as far as it is read at rest."""

    checkpoints_digest: Decimal
    """Of all their checkpoints: the same as long as none of them has changed."""
    waiting: Collection[str]
    """The sagas for which events wait: a stream is parked, or an instance failed."""


class ProgressStore:
    """Reads on connections that steps, events and queries do not use up.

    Args:
        reserved: the pool of these connections.
    """

    def __init__(self, reserved: AsyncEngine) -> None:
        self._statements = autocommit(reserved)
        # Each has a connection of its own, so that neither waits for the statement of the other one.
        self._inspection, self._feeds = (StatementSession(reserved) for _ in range(2))

    async def close(self) -> None:
        await self._inspection.close()
        await self._feeds.close()

    async def read_instances(self, timers: Collection[DueTimer]) -> dict[tuple[str, str], InstanceProgress]:
        """Return how far the instances of these timers are, by saga and id."""
        keys = sorted({(timer.saga, timer.id) for timer in timers})
        sagas, ids = to_columns(keys, 2)
        async with self._statements.connect() as connection:
            rows = (await connection.execute(INSTANCE_PROGRESS, {"sagas": sagas, "ids": ids})).all()
            checkpoints = await read_checkpoints(connection, set(sagas))
        return {
            (row.saga, row.id): InstanceProgress(
                row.version or 0,
                {(step, attempt): method for step, attempt, method in row.pending},
                checkpoints,
            )
            for row in rows
        }

    async def read_open(
        self, sagas: Collection[str], partitions: Collection[int], after: tuple[str, str], limit: int
    ) -> Sequence[Any]:
        """Return the key, and the columns that may be unreadable, of instances that are open or unreadable.

        Args:
            sagas: the names of the sagas.
            partitions: the partitions of the instances.
            after: saga and id after which the page begins.
            limit: the maximum number of instances.
        """
        rows: Sequence[Any] = await self._inspection.fetch(
            OPEN_INSTANCES, list(sagas), list(partitions), *after, limit
        )
        return rows

    async def read_feeds(self, sagas: Collection[str]) -> FeedProgress:
        """Return whether the checkpoints of these sagas have changed, and for which of them events wait."""
        (row,) = await self._feeds.fetch(FEED_PROGRESS, list(sagas))
        return FeedProgress(*row)
