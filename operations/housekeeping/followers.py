"""The followers of the stream: projections with checkpoints in Redis, and sagas with theirs in PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from contracts import streams
from contracts.view_layout import View, parse_checkpoint
from operations.housekeeping.database import Database
from process_manager.saga import Saga

ALL_TYPES = ("*.*",)

ADVANCE_IN_REDIS = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
"""

# A saga that has begun follows the stream from then on, also before its first message.
READ_SAGAS = """
SELECT b.saga, c.stream_type, c.partition, c.epoch, c.sequence
FROM saga_beginnings b LEFT JOIN saga_checkpoints c USING (saga)
"""
READ_FAILED = """
SELECT saga, stream FROM saga_parked_streams
UNION ALL SELECT saga, id FROM sagas WHERE failed_input <> ''
UNION ALL SELECT saga, id FROM sagas WHERE other_streams @? '$.*.failed_input ? (@ <> "")'
LIMIT 1
"""
ADVANCE_SAGA = """
INSERT INTO saga_checkpoints (saga, stream_type, partition, epoch, sequence)
VALUES (:saga, :stream_type, :partition, :epoch, :sequence)
ON CONFLICT (saga, stream_type, partition) DO UPDATE SET sequence = excluded.sequence
WHERE saga_checkpoints.epoch = excluded.epoch AND saga_checkpoints.sequence = :old
RETURNING 1
"""


class Follower(Protocol):
    """A reader of one partition, with a stored checkpoint."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def subjects(self) -> Sequence[str]:
        """The filters of the messages that it reads."""

    @property
    def checkpoint(self) -> tuple[str, int]:
        """The epoch, and the sequence up to which it has read."""

    async def advance(self, sequence: int) -> None:
        """Advance the checkpoint, unless it has changed."""


@dataclass(frozen=True)
class Waiting:
    """A reader that failed on an event and may need any message of its aggregate again."""

    name: str
    checkpoint: tuple[str, int] = ("", 0)
    subjects: Sequence[str] = ()

    async def advance(self, sequence: int) -> None:
        """Nothing advances it but the retry of its event."""


@dataclass(frozen=True)
class ProjectionFollower:
    """A partition of one projection."""

    redis: Redis
    key: str
    partition: int
    stored: bytes
    stream_types: Sequence[str]

    @property
    def name(self) -> str:
        return f"projection {self.key.split(':')[1]} ({self.key})"

    @property
    def subjects(self) -> Sequence[str]:
        return [streams.partition_subject(self.partition, each) for each in self.stream_types]

    @property
    def checkpoint(self) -> tuple[str, int]:
        return parse_checkpoint(self.stored)

    async def advance(self, sequence: int) -> None:
        new = f"{self.checkpoint[0]}/{sequence}"
        await self.redis.eval(ADVANCE_IN_REDIS, 1, self.key, str(self.partition), self.stored, new)


class ProjectionFollowers:
    """All projections in Redis, also those of contexts that are not installed here.

    Args:
        redis: the read model.
        views: the installed ones; the others count as followers of all types.
    """

    def __init__(self, redis: Redis, views: Sequence[View]) -> None:
        self._redis = redis
        self._types: Mapping[str, Sequence[str]] = {view.checkpoints: view.source_streams for view in views}

    async def read(self, epoch: str) -> Sequence[Follower]:
        keys = {key.decode() async for key in self._redis.scan_iter(match="checkpoints:*", count=1_000)}
        followers: list[Follower] = []
        for key in sorted(keys | self._types.keys()):
            # A build that is about to begin has no checkpoints; it counts as one at the start.
            rows = await self._read_checkpoints(key)
            followers += [
                ProjectionFollower(
                    self._redis, key, each, rows.get(str(each).encode(), b""), self._types.get(key, ALL_TYPES)
                )
                for each in range(streams.PARTITIONS)
            ]
        async for key in self._redis.scan_iter(match="parked:*", count=1_000):
            name = key.decode().split(":")[1]
            followers.append(Waiting(f"projection {name}, which has parked aggregates,"))
        return followers

    async def _read_checkpoints(self, key: str) -> Mapping[bytes, bytes]:
        """Return the checkpoints by partition; none if the key is no hash, which begins another build."""
        try:
            fields: Any = await self._redis.hgetall(key)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return {}
        return dict(fields)


@dataclass(frozen=True)
class SagaFollower:
    """A feed of one saga: a stream type in a partition."""

    database: Database
    saga: str
    stream_type: str
    partition: int
    checkpoint: tuple[str, int]

    @property
    def name(self) -> str:
        return f"saga {self.saga}"

    @property
    def subjects(self) -> Sequence[str]:
        return [streams.partition_subject(self.partition, self.stream_type)]

    async def advance(self, sequence: int) -> None:
        epoch, old = self.checkpoint
        await self.database.fetch(
            ADVANCE_SAGA,
            saga=self.saga,
            stream_type=self.stream_type,
            partition=self.partition,
            epoch=epoch,
            sequence=sequence,
            old=old,
        )


class SagaFollowers:
    """All sagas that have ever begun.

    Args:
        database: their checkpoints.
        sagas: the installed ones; of the others only the feeds with a checkpoint are known.
    """

    def __init__(self, database: Database, sagas: Sequence[Saga[Any]]) -> None:
        self._database = database
        self._types = {saga.name: [each.stream_type for each in saga.subscribes_to] for saga in sagas}

    async def read(self, epoch: str) -> Sequence[Follower]:
        rows = await self._database.fetch(READ_SAGAS)
        failed = await self._database.fetch(READ_FAILED)
        if failed:
            return [Waiting(f"saga {failed[0].saga}, which failed on an event of {failed[0].stream},")]
        stored = {(r.saga, r.stream_type, r.partition): (r.epoch, r.sequence) for r in rows if r.stream_type}
        feeds = {*stored} | {
            feed
            for saga in {row.saga for row in rows}
            for feed in product((saga,), self._types.get(saga, ()), range(streams.PARTITIONS))
        }
        # A feed without a checkpoint has read nothing of any epoch.
        return [
            SagaFollower(self._database, saga, stream_type, partition, stored.get(feed, (epoch, 0)))
            for feed in sorted(feeds)
            for saga, stream_type, partition in [feed]
        ]
