"""Read-only queries over the feeds of sagas: checkpoints, beginnings and parked streams."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts import streams
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import Checkpoint, Feed
from process_manager.postgres.schema import BEGINNINGS, CHECKPOINTS, PARKED_STREAMS
from process_manager.queries.saga_records import ParkedStream

Position = tuple[str, str, Checkpoint]
"""A saga, a stream, and a checkpoint of its feed."""

READ_VERSIONS = text("""
SELECT saga, id, version
FROM unnest(CAST(:sagas AS text[]), CAST(:ids AS text[])) AS k(saga, id) JOIN sagas USING (saga, id)
""")

FIND_PASSED = text("""
SELECT k.number
FROM unnest(CAST(:sagas AS text[]), CAST(:streams AS text[]), CAST(:ids AS text[]), CAST(:types AS text[]),
    CAST(:partitions AS int[]), CAST(:epochs AS text[]), CAST(:sequences AS bigint[])) WITH ORDINALITY
  AS k(saga, stream, id, type, partition, epoch, sequence, number)
JOIN saga_checkpoints c
  ON c.saga = k.saga AND c.stream_type = k.type AND c.partition = k.partition AND c.epoch = k.epoch
    AND c.sequence >= k.sequence
WHERE NOT EXISTS (SELECT FROM saga_parked_streams p WHERE p.saga = k.saga AND p.stream = k.stream)
  AND NOT EXISTS (
    SELECT FROM sagas s
    WHERE s.saga = k.saga AND s.blocked_reason <> '' AND (
      s.id = k.id AND s.failed_input <> '' OR s.other_streams -> k.stream ->> 'failed_input' <> ''
    )
  )
""")


async def read_checkpoints(connection: AsyncConnection, sagas: Collection[str]) -> dict[Feed, Checkpoint]:
    """Return the checkpoints of all feeds of these sagas."""
    rows = await connection.execute(select(CHECKPOINTS).where(CHECKPOINTS.c.saga.in_(sagas)))
    return {Feed(row.saga, row.stream_type, row.partition): (row.epoch, row.sequence) for row in rows}


class FeedReader:
    """Reads the process manager's tables.

    Args:
        engine: of the process manager's database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def read_versions(self, instances: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Return the versions of the last processed events of the instances' own streams.

        Args:
            instances: their sagas and ids.
        """
        sagas, ids = to_columns(instances, 2)
        async with self._engine.connect() as connection:
            rows = await connection.execute(READ_VERSIONS, {"sagas": sagas, "ids": ids})
            return {(row.saga, row.id): row.version for row in rows}

    async def read_checkpoints(self, sagas: Collection[str]) -> dict[Feed, Checkpoint]:
        """Return the checkpoints of all feeds of these sagas."""
        async with self._engine.connect() as connection:
            return await read_checkpoints(connection, sagas)

    async def find_passed(self, positions: Collection[Position]) -> set[Position]:
        """Return the positions that the feeds have reached, without those of streams whose events wait."""
        ordered = list(positions)
        ids = [streams.aggregate_id(stream) for _, stream, _ in ordered]
        parameters = {
            "sagas": [saga for saga, _, _ in ordered],
            "streams": [stream for _, stream, _ in ordered],
            "ids": ids,
            "types": [streams.stream_type(stream) for _, stream, _ in ordered],
            "partitions": [streams.partition(id_) for id_ in ids],
            "epochs": [epoch for _, _, (epoch, _) in ordered],
            "sequences": [sequence for _, _, (_, sequence) in ordered],
        }
        async with self._engine.connect() as connection:
            return {ordered[number - 1] for number in await connection.scalars(FIND_PASSED, parameters)}

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
