"""Writes the views of one projection to Redis as its projector does, without stream and process."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from contracts.envelope import RecordedEvent
from contracts.streams import aggregate_id
from projector.fold import fold
from projector.projection import Projection
from projector.records import Record, Update
from projector.redis_archive import RedisArchive

INCARNATION = str(uuid4())


class StoredProjection:
    """The views of one projection, in a build of its own."""

    def __init__(self, redis: Redis, projection: Projection[Any]) -> None:
        self.redis, self.projection, self.view = redis, projection, projection.view
        self.store = RedisArchive(redis, projection.view)

    async def begin_build(self) -> None:
        """Begin a build that has caught up."""
        await self.store.read_build()
        await self.store.begin_build(INCARNATION, "epoch")
        assert await self.store.read_build() is not None
        await self.redis.set(self.view.ready, INCARNATION)

    async def write(self, *runs: Sequence[RecordedEvent]) -> None:
        """Apply the events of some new aggregates."""
        updates = []
        for events in runs:
            before = Record(aggregate_id(events[0].stream), self.view.message())
            folded = fold(self.projection, before, events)
            assert folded.error is None
            updates.append(Update(before, folded.record, folded.content, folded.applied_events, None, 0))
        assert await self.store.write(updates) == set()

    async def read(self, view_id: str) -> dict[bytes, bytes]:
        fields: Any = await self.redis.hgetall(self.view.key(view_id))
        return dict(fields)

    async def read_versions(self, view_id: str) -> list[int]:
        """Return the versions that have an entry in a view's history, in order."""
        return sorted(map(int, await self.redis.hkeys(self.view.history(view_id))))
