"""Removes old messages from the stream, once nothing that follows it needs them.

How it works. The stream is a copy of PostgreSQL's events, so no event is lost. A message goes if it is older
than the retention, marked in the outbox, and behind every checkpoint. The checkpoint of a follower without
later messages of its own types is advanced first, by compare-and-set: from then on a checkpoint below the
removed messages means that its follower lacks events. Then the stream's metadata says up to where messages
are about to be removed, all checkpoints are read once more, and the messages are purged. A follower whose
checkpoint is below the removed messages, or missing, does not read on: it asks the relay to recreate the
stream with all events. So a rebuild, an empty Redis and a new saga work as before, and cost a republish.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from contracts import streams
from contracts.generations import read_all
from operations.housekeeping.database import Database
from operations.housekeeping.followers import Follower, ProjectionFollowers, SagaFollowers
from operations.housekeeping.kinds import Result
from process_manager.saga import Saga
from projector.projection import Projection
from runtime.jetstream import Connection, StreamIdentity, connect, read_stream_identity
from runtime.jetstream.stream import (
    EPOCH_KEY,
    FORMER_LEADER_TIME,
    REMOVED_KEY,
    has_message,
    read_next_sequence,
)
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.redis.pool import open_client

TIMEOUT = 5.0
"""Seconds for the connection to NATS, and for each answer of Redis."""

MARKED = "SELECT CAST(epoch AS text), CAST(incarnation AS text), sequence FROM relay_state WHERE id = 1"


class Followers(Protocol):
    """A source of followers: the projections in Redis, or the sagas in PostgreSQL."""

    async def read(self, epoch: str) -> Sequence[Follower]:
        """Return all of them, with their checkpoints as they are now."""


class StreamRemoval:
    """Removes old messages.

    Args:
        database: the marks of the outbox.
        connection: to NATS.
        sources: all that follow the stream.
    """

    def __init__(self, database: Database, connection: Connection, sources: Sequence[Followers]) -> None:
        self._database = database
        self._connection = connection
        self._sources = sources

    async def remove(self, retention: timedelta | None, dry_run: bool) -> Result:
        """Remove messages older than the retention, or count them."""
        if retention is None:
            return Result()
        stream = await read_stream_identity(self._connection.js)
        if stream is None or not stream.complete or not stream.intact:
            return Result(note="the stream is being rebuilt")
        if stream.denies_purges:
            return Result(note="the stream keeps all messages; restart the relays with DIPTYCH_KEEP_STREAM")
        epoch, incarnation, marked = (await self._database.fetch(MARKED))[0]
        if (epoch, incarnation) != (stream.epoch, stream.incarnation):
            return Result(note="the relay is not at work on this stream")
        kept_since = datetime.now(UTC) - retention
        end = min(await self._find_end(stream, kept_since), marked)
        count = max(0, end - max(stream.first_sequence, 1) + 1)
        if not count:
            return Result(0, kept_since)
        followers = await self._read_followers(stream.epoch)
        if blocking := await self._find_surely_blocking(followers, stream, end):
            return Result(0, note=f"{blocking.name} has not read {count:,} old messages yet")
        if dry_run:
            return Result(count, kept_since)
        for follower in followers:  # those of this reading, which have no message up to `end`
            if follower.checkpoint[1] < end:
                await follower.advance(end)
        await self._record_removal(stream.epoch, end)
        # A build that began meanwhile either has its checkpoints in this reading, or reads the metadata.
        for follower in await self._read_followers(stream.epoch):
            if not _includes(follower, stream.epoch, end):
                return Result(0, note=f"{follower.name} began meanwhile")
        if not await self._is_recorded(stream.epoch, end):
            return Result(0, note="the relay has changed the stream meanwhile")
        await self._connection.js.purge_stream(streams.JETSTREAM, seq=end + 1)
        return Result(count, kept_since)

    async def _record_removal(self, epoch: str, end: int) -> None:
        info = await self._connection.js.stream_info(streams.JETSTREAM)
        metadata = info.config.metadata or {}
        if metadata.get(EPOCH_KEY) != epoch:
            raise TimeoutError("the stream was replaced")
        removed_to = str(max(end, int(metadata.get(REMOVED_KEY, 0))))
        await self._connection.js.update_stream(
            info.config.evolve(metadata={**metadata, REMOVED_KEY: removed_to})
        )

    async def _is_recorded(self, epoch: str, end: int) -> bool:
        """Return whether the stream's metadata still says that messages up to `end` are removed.

        JetStream has no compare-and-set for a configuration, so the relay may have written back what it had
        read before. Without the metadata it would take the purge for a loss and recreate the stream.
        """
        stream = await read_stream_identity(self._connection.js)
        return stream is not None and stream.epoch == epoch and stream.removed_to >= end

    async def _find_end(self, stream: StreamIdentity, before: datetime) -> int:
        """Return the last sequence of the messages that were published before this time."""
        low, high = max(stream.first_sequence, 1) - 1, stream.last_sequence
        while low < high:
            middle = (low + high + 1) // 2
            message = await self._connection.js.get_msg(streams.JETSTREAM, seq=middle)
            if message.time is not None and message.time < before:
                low = middle
            else:
                high = middle - 1
        return low

    async def _find_surely_blocking(
        self, followers: Sequence[Follower], stream: StreamIdentity, end: int
    ) -> Follower | None:
        """Return what `_find_blocking` does; with several replicas, none only if it finds none twice."""
        blocking = await self._find_blocking(followers, stream.epoch, end)
        if blocking is not None or stream.replicas == 1:
            return blocking
        await asyncio.sleep(FORMER_LEADER_TIME)
        return await self._find_blocking(followers, stream.epoch, end)

    async def _find_blocking(self, followers: Sequence[Follower], epoch: str, end: int) -> Follower | None:
        """Return a follower that has not read all its messages up to `end`; None if there is none."""
        for follower in followers:
            if _includes(follower, epoch, end):
                continue
            if follower.checkpoint[0] != epoch or await self._has_message(follower, end):
                return follower
        return None

    async def _has_message(self, follower: Follower, end: int) -> bool:
        """Return whether the stream has a message for a follower after its checkpoint, up to `end`.

        So it may have if the server that answers lacks the message at `end` (`has_message`).
        """
        js = self._connection.js
        for subject in follower.subjects:
            following, is_current = await asyncio.gather(
                read_next_sequence(js, subject, follower.checkpoint[1] + 1), has_message(js, end)
            )
            if not is_current or (following is not None and following <= end):
                return True
        return False

    async def _read_followers(self, epoch: str) -> list[Follower]:
        return [follower for source in self._sources for follower in await source.read(epoch)]


def _includes(follower: Follower, epoch: str, end: int) -> bool:
    """Return whether a follower's checkpoint is at `end` or later."""
    return follower.checkpoint[0] == epoch and follower.checkpoint[1] >= end


async def remove(
    settings: Settings, database: Database, retention: timedelta | None, dry_run: bool
) -> Result:
    """Remove old messages, or count them; without a retention no server is connected."""
    if retention is None:
        return Result()
    manifests = choose_contexts(settings)
    views = [each.view for each in load_parts(manifests, "projections", "PROJECTIONS", Projection)]
    sagas = load_parts(manifests, "sagas", "SAGAS", Saga)
    connection = await connect(settings.nats_url, "housekeeping")
    try:
        async with open_client(settings.redis_url, socket_timeout=TIMEOUT) as redis:
            async with asyncio.timeout(TIMEOUT):
                await connection.wait_until_connected()
            generations = [each for view in views for each in await read_all(redis, view)]
            sources: list[Followers] = [
                ProjectionFollowers(redis, generations),
                SagaFollowers(database, sagas),
            ]
            return await StreamRemoval(database, connection, sources).remove(retention, dry_run)
    finally:
        await connection.close()
