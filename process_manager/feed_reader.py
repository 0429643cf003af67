"""Read-only queries over the feeds of sagas: checkpoints, beginnings and parked streams."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, exists, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import streams
from process_manager.due_work import Checkpoint
from process_manager.saga_records import ParkedStream
from process_manager.schema import BEGINNINGS, CHECKPOINTS, PARKED_STREAMS, SAGAS


class FeedReader:
    """Reads the process manager's tables.

    Args:
        engine: of the process manager's database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def read_version(self, saga: str, id_: str) -> int:
        """Return the version of the last processed event of an instance's own stream; 0 if there is none."""
        async with self._engine.connect() as connection:
            query = select(SAGAS.c.version).where(SAGAS.c.saga == saga, SAGAS.c.id == id_)
            return await connection.scalar(query) or 0

    async def has_passed(self, saga: str, stream: str, checkpoint: Checkpoint) -> bool:
        """Return whether the feed of a stream has reached a checkpoint, and no event of the stream waits."""
        columns, (epoch, sequence) = CHECKPOINTS.c, checkpoint
        id_ = streams.aggregate_id(stream)
        reached = exists().where(
            columns.saga == saga,
            columns.stream_type == streams.stream_type(stream),
            columns.partition == streams.partition(id_),
            columns.epoch == epoch,
            columns.sequence >= sequence,
        )
        parked = exists().where(PARKED_STREAMS.c.saga == saga, PARKED_STREAMS.c.stream == stream)
        failed = exists().where(
            SAGAS.c.saga == saga,
            SAGAS.c.blocked_reason != "",
            or_(
                and_(SAGAS.c.id == id_, SAGAS.c.failed_input != ""),
                SAGAS.c.other_streams[stream]["failed_input"].astext != "",
            ),
        )
        async with self._engine.connect() as connection:
            return bool(await connection.scalar(select(and_(reached, not_(parked), not_(failed)))))

    async def read_beginnings(self) -> dict[str, datetime]:
        """Return the moments before which sagas pass over events, by the names of the sagas that have one."""
        query = select(BEGINNINGS.c.saga, BEGINNINGS.c.at).where(BEGINNINGS.c.at.is_not(None))
        async with self._engine.connect() as connection:
            return {row.saga: row.at for row in await connection.execute(query)}

    async def read_parked_streams(self, sagas: Collection[str]) -> list[ParkedStream]:
        """Return the streams that are parked for these sagas, the longest parked first."""
        columns = PARKED_STREAMS.c
        query = select(*(columns[name] for name in ParkedStream.__dataclass_fields__)).where(
            columns.saga.in_(sagas)
        )
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.order_by(columns.since, columns.stream))
            return [ParkedStream(*row) for row in rows]

    async def count_parked_streams(self) -> int:
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(PARKED_STREAMS)) or 0
