"""Dead letters of sagas: instances that failed on an event, and streams that are parked with an error.

How it works. Both are few, and partial indexes find them, so that a page sorts all of them. An instance has
no time of its failure: it counts from the time at which its event was recorded.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts import streams
from operations_server.parked.parked_list import Position
from operations_server.records.database import Database
from process_manager.saga import Saga
from runtime.process.error_place import split_place

READ_SIZE = 200
"""Dead letters that are read at once."""
MAX_OF_ID = 1_000
"""Dead letters of one id that are read."""
NAME_PREFIX = "sagas/"
"""Of a saga's name in a position, so that it differs from those of projections."""

_FAILED = """
WITH known AS (SELECT * FROM unnest($1::text[], $2::text[]) AS k(saga, own_type)),
letters AS (
  SELECT p.saga, '' AS id, p.stream, p.version, p.error, p.since
  FROM saga_parked_streams p JOIN known USING (saga) WHERE p.error <> ''
UNION ALL
  SELECT f.saga, f.id, f.stream, f.version, f.error, coalesce(e.recorded_at, to_timestamp(0))
  FROM (
    SELECT saga, id, stream, error,
      coalesce(CAST(substring(error FROM '^version (\\d{1,18})\\y') AS bigint), last_version + 1) AS version
    FROM (
      SELECT g.saga, g.id, known.own_type || '.' || g.id AS stream, g.failed_input AS error,
        g.version AS last_version
      FROM sagas g JOIN known USING (saga) WHERE g.blocked_reason <> '' AND g.failed_input <> ''
    UNION ALL
      SELECT g.saga, g.id, o.stream, o.position ->> 'failed_input',
        coalesce(CAST(substring(o.position ->> 'version' FROM '^\\d{1,18}$') AS bigint), 0)
      FROM sagas g JOIN known USING (saga) CROSS JOIN LATERAL jsonb_each(
        CASE jsonb_typeof(g.other_streams) WHEN 'object' THEN g.other_streams ELSE '{}' END
      ) AS o (stream, position)
      WHERE g.blocked_reason <> '' AND g.other_streams <> '{}' AND o.position ->> 'failed_input' <> ''
    ) failed
  ) f LEFT JOIN events e ON e.stream = f.stream AND e.version = f.version
),
positions AS (
  SELECT *, floor(extract(epoch FROM since) * 1000)::float8 AS at, 'sagas/' || saga AS name,
    id || ' ' || stream AS key
  FROM letters
)
"""
READ_AFTER = f"""{_FAILED}
SELECT saga, id, stream, version, error, since, at, name, key FROM positions
WHERE $3::float8 IS NULL OR (at, name COLLATE "C", key COLLATE "C") > ($3, $4, $5)
ORDER BY at, name COLLATE "C", key COLLATE "C" LIMIT $6
"""  # noqa: S608 - no part of it is data
FIND = f"""{_FAILED}
SELECT saga, id, stream, version, error, since, at, name, key FROM positions
WHERE id = $3 OR right(stream, length($3) + 1) = '.' || $3
ORDER BY name COLLATE "C", key COLLATE "C" LIMIT $4
"""  # noqa: S608 - no part of it is data


@dataclass(frozen=True)
class SagaLetter:
    """An event that a saga cannot process."""

    position: Position
    saga: str
    id: str
    """Of the instance; empty if the event belongs to none."""
    stream: str
    version: int
    error: str
    place: str
    since: datetime


class SagaLetters:
    """Reads dead letters of sagas.

    Args:
        database: its connections.
        sagas: the definitions.
    """

    def __init__(self, database: Database, sagas: Iterable[Saga[Any]]) -> None:
        self._database = database
        self._own_types = {saga.name: saga.own_type for saga in sagas}

    @property
    def names(self) -> Sequence[str]:
        """The names of the sagas."""
        return list(self._own_types)

    async def find(self, names: Sequence[str], id_: str) -> Sequence[SagaLetter]:
        """Return those of an instance, or of an aggregate."""
        rows = await self._database.fetch(FIND, *self._select(names), id_, MAX_OF_ID)
        return [_read(row) for row in rows]

    async def read_after(self, names: Sequence[str], after: Position | None) -> AsyncGenerator[SagaLetter]:
        """Yield those behind a position in order, READ_SIZE at once."""
        while names:
            position = after or (None, None, None)
            rows = await self._database.fetch(READ_AFTER, *self._select(names), *position, READ_SIZE)
            for row in rows:
                yield _read(row)
            if len(rows) < READ_SIZE:
                return
            after = _read(rows[-1]).position

    def _select(self, names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        return names, [self._own_types[name] for name in names]


def _read(row: Any) -> SagaLetter:
    error, place = split_place(row["error"])
    position = row["at"], row["name"], row["key"]
    return SagaLetter(
        position, row["saga"], row["id"], row["stream"], row["version"], error, place, row["since"]
    )


def parse_stream(letter: SagaLetter) -> tuple[str, int]:
    """Return the type and the partition of a dead letter's stream."""
    return streams.stream_type(letter.stream), streams.partition(streams.aggregate_id(letter.stream))
