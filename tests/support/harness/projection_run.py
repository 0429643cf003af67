"""Runs projectors in this process: publishes events of cheques, and compares views with expected ones."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from nats.aio.msg import Msg
from nats.js import api
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.skips import PAGE_SIZE, SKIPS_SUBJECT, SkippedEvent, SkipsReply, decode_request, encode
from projector.event_feed import JetStreamEventFeed
from projector.leases import RedisLeases
from projector.ports import Store
from projector.projection import Projection
from projector.redis_connection import connect as connect_redis
from projector.redis_skips import RedisSkips
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from projector.runner import Runner
from projector.skips import NO_SKIPS, Skips
from projector.writer import Observer
from runtime.jetstream import Connection, PublicationClock, SharedReader, connect
from runtime.jetstream.stream import COMPLETE_KEY, EPOCH_KEY, INCARNATION_KEY, KEYS_KEY
from tests.support.harness.jetstream import create_stream
from tests.support.harness.keys import FEED_KEY, FEED_REPLIES, get_ring, sign_events
from tests.support.ledger import histories as expect
from tests.support.ledger.projections import CHEQUES
from tests.support.ledger.stubs import types as views

VIEW = CHEQUES.view
INCARNATION_ID = str(uuid4())


class EventPublisher:
    """Replaces the relay: creates the stream and publishes events in any order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.epoch = ""
        self.incarnation = INCARNATION_ID
        self.skips: list[SkippedEvent] = []
        """Those of all projections."""

    async def create(self, *, complete: bool = True, incarnation: str = INCARNATION_ID) -> None:
        """Create the stream, with a new epoch."""
        self.epoch = str(uuid4())
        await create_stream(self.connection.js, self._config(complete, incarnation))

    async def mark_complete(self, incarnation: str = INCARNATION_ID) -> None:
        """Mark the stream as one that has all earlier events."""
        await self.connection.js.update_stream(self._config(True, incarnation))

    async def delete(self) -> None:
        await self.connection.js.delete_stream(streams.JETSTREAM)

    def _config(self, complete: bool, incarnation: str) -> api.StreamConfig:
        return api.StreamConfig(
            name=streams.JETSTREAM,
            subjects=[streams.SUBJECTS],
            allow_direct=True,
            metadata={
                EPOCH_KEY: self.epoch,
                INCARNATION_KEY: incarnation,
                COMPLETE_KEY: str(complete).lower(),
                KEYS_KEY: FEED_KEY.id,
            },
        )

    async def publish(self, *recorded_events: RecordedEvent) -> None:
        """Publish events and wait for the acknowledgements. Nothing else may publish meanwhile."""
        after = (await self.connection.js.stream_info(streams.JETSTREAM)).state.last_seq
        acks = [
            await self.connection.js.publish_async(message.subject, message.data, headers=message.headers)
            for message in sign_events(self.epoch, recorded_events, after)
        ]
        async with asyncio.timeout(60):
            await asyncio.gather(*acks)

    async def tell_skips(self, request: Msg) -> None:
        """Reply as a relay does."""
        after = decode_request(request.data).after
        page = [event for event in self.skips if event.number > after][:PAGE_SIZE]
        await self._reply(request, encode(SkipsReply(self.incarnation, page)))

    async def confirm(self, request: Msg) -> None:
        """Reply as a relay does that has published everything."""
        await self._reply(request, f"{self.epoch}/0".encode())

    async def _reply(self, request: Msg, data: bytes) -> None:
        await request.respond(FEED_REPLIES.sign(data, request.reply).encode())


@asynccontextmanager
async def publisher(nats_url: str) -> AsyncIterator[EventPublisher]:
    async with await connect(nats_url, "publisher", get_ring) as connection:
        await connection.wait_until_connected()
        publisher = EventPublisher(connection)
        await connection.client.subscribe(streams.PUBLISHED_SUBJECT, cb=publisher.confirm)
        await connection.client.subscribe(SKIPS_SUBJECT, cb=publisher.tell_skips)
        yield publisher


@dataclass
class RunningProjector:
    """A projector of this process. Like SIGKILL, `kill` finishes no batch and releases no lease."""

    store: RedisStore
    leases: RedisLeases
    tasks: list[asyncio.Task[None]]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.wait({self.tasks[0]})
        await self.leases.leave()
        await self.kill()

    async def kill(self) -> None:
        while unfinished := [task for task in self.tasks if not task.done()]:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=1)  # wait_for of Python 3.11 may swallow a cancellation

    async def wait_for_error(self) -> BaseException | None:
        """Wait until the runner has ended by itself, and return its exception."""
        await asyncio.wait({self.tasks[0]}, timeout=20)
        return self.tasks[0].exception()


class Killed(BaseException):
    """Simulates SIGKILL: no code of the projector catches it."""


STORE_METHODS = frozenset(name for name in vars(Store) if not name.startswith("_"))


def dying_store(step: str, when: str, nth: int = 1) -> type[RedisStore]:
    """Return a store that raises `Killed` before or after the nth call of a method, and from then on."""

    class DyingStore(RedisStore):
        calls = 0
        dead = False

        def __getattribute__(self, name: str) -> Any:
            if super().__getattribute__("dead") and name in STORE_METHODS:
                raise Killed
            return super().__getattribute__(name)

    inner = getattr(RedisStore, step)

    async def call(self: DyingStore, *args: Any) -> Any:
        self.calls += 1
        if self.calls == nth and when == "before":
            self.dead = True
            raise Killed
        try:
            result = await inner(self, *args)
        except BaseException:  # the session has ended; its next one makes the call again
            self.calls -= 1
            raise
        if self.calls == nth:
            self.dead = True
            raise Killed
        return result

    setattr(DyingStore, step, call)
    return DyingStore


def pausing_store(step: str) -> type[RedisStore]:
    """Return a store that pauses before each call of a method.

    It sets `waiting`, waits for `proceed`, makes the call, and sets `finished`.
    """

    class PausingStore(RedisStore):
        def __init__(self, redis: Redis, view: Any) -> None:
            super().__init__(redis, view)
            self.waiting = asyncio.Event()
            self.proceed = asyncio.Event()
            self.finished = asyncio.Event()

    inner = getattr(RedisStore, step)

    async def call(self: PausingStore, *args: Any) -> Any:
        self.waiting.set()
        await self.proceed.wait()
        try:
            return await inner(self, *args)
        finally:
            self.finished.set()

    setattr(PausingStore, step, call)
    return PausingStore


@asynccontextmanager
async def projector(
    redis_url: str,
    nats_url: str,
    *,
    projection: Projection[Any] = CHEQUES,
    store: Callable[[Redis, Any], RedisStore] = RedisStore,
    retries: RetryPolicy = RetryPolicy(first_pause=0.05),  # noqa: B008 - it is frozen
    observe: Observer = lambda _: None,
    partitions: Iterable[int] | None = None,
    skips: bool = False,
) -> AsyncIterator[RunningProjector]:
    """Run a projector.

    Args:
        redis_url: for the views.
        nats_url: for the events.
        projection: the projection to run.
        store: the factory of the store.
        retries: the retry policy, with short pauses by default.
        observe: called with every batch of successful updates.
        partitions: fixed partitions, without leases; None to share them by leases.
        skips: whether to ask for events to skip, to which something has to reply.
    """
    async with (
        connect_redis(redis_url) as redis,
        await connect(nats_url, "projector", get_ring) as connection,
    ):
        await connection.wait_until_connected()
        views_store, leases = store(redis, projection.view), RedisLeases(redis, "ledger")
        if partitions is not None:
            leases._partitions = frozenset(partitions)
        publication = PublicationClock(connection)
        shared = SharedReader(connection, lambda: leases.partitions, publication)
        feed = JetStreamEventFeed(connection, shared, projection.view.source_streams)
        runner = Runner(
            projection,
            views_store,
            feed,
            leases,
            retries,
            observe,
            skips=Skips(RedisSkips(redis, connection, projection.view)) if skips else NO_SKIPS,
        )
        running = RunningProjector(views_store, leases, [])
        running.tasks = [
            asyncio.create_task(runner.run(running.stopping)),
            asyncio.create_task(publication.run()),
            asyncio.create_task(shared.run()),
        ]
        if partitions is None:
            running.tasks.append(asyncio.create_task(leases.keep()))
        try:
            yield running
        finally:
            await running.kill()


ALL_PARTITIONS = range(streams.PARTITIONS)


async def read_view(redis: Redis, cheque_id: str) -> dict[str, bytes]:
    """Return the fields of a view's hash."""
    fields: Any = await redis.hgetall(f"view:ledger.cheque:2:{{{cheque_id}}}")
    return {name.decode(): value for name, value in fields.items()}


async def read_version(redis: Redis, cheque_id: str) -> int:
    return int(await redis.hget(f"view:ledger.cheque:2:{{{cheque_id}}}", "version") or 0)


async def is_ready(redis: Redis) -> bool:
    return bool(await redis.exists("ready:ledger.cheque:2"))


async def read_indexes(redis: Redis) -> dict[str, set[str]]:
    """Return the members of all indexes of cheques, by key."""
    keys = [key async for key in redis.scan_iter(match="index:ledger.cheque:2:*", count=1_000)]
    return {key.decode(): set(await read_index(redis, key)) for key in sorted(keys)}


async def read_index(redis: Redis, key: bytes | str) -> list[str]:
    """Return an index's members, oldest first."""
    members: Any = await redis.zrange(key, 0, -1)
    return [member.decode() for member in members]


async def has_applied(redis: Redis, histories: Iterable[Sequence[RecordedEvent]]) -> bool:
    """Return whether every view is at the version of its last event."""
    async with redis.pipeline(transaction=False) as pipe:
        histories = list(histories)
        for history in histories:
            pipe.hget(VIEW.key(streams.aggregate_id(history[0].stream)), "version")
        versions = await pipe.execute()
    return all(
        int(version or 0) == history[-1].version for version, history in zip(versions, histories, strict=True)
    )


async def is_complete(redis: Redis, histories: Iterable[Sequence[RecordedEvent]]) -> bool:
    """Return whether every view is at the version of its last event, and nothing is parked or replayed."""
    return await has_applied(redis, histories) and not await redis.exists(VIEW.parked)


async def read_counters(redis: Redis) -> dict[str, dict[str, int]]:
    """Return all counters, by key and name."""
    keys = [key async for key in redis.scan_iter(match="counters:*", count=1_000)]
    hashes: dict[str, Any] = {key.decode(): await redis.hgetall(key) for key in keys}
    return {
        key: {name.decode(): int(amount) for name, amount in counters.items()}
        for key, counters in hashes.items()
    }


async def read_change_feed(redis: Redis, account: str = "a-1") -> dict[str, int]:
    """Return the cheque ids of an account's change feed, with the numbers of their last changes."""
    key = f"change_feed:ledger.cheque:2:{{account/{account}}}"
    members: Any = await redis.zrange(key, 0, -1, withscores=True)
    return {cheque_id.decode(): int(number) for cheque_id, number in members}


async def assert_views(redis: Redis, histories: Iterable[Sequence[RecordedEvent]]) -> None:
    """Assert that Redis has exactly these cheques, with exactly their index entries and counters."""
    entries: dict[str, set[str]] = {}
    keys, cheques = set(), [expect.cheque(history) for history in histories]
    for cheque in cheques:
        fields = await read_view(redis, cheque.cheque_id)
        assert views.Cheque.FromString(fields["data"]) == cheque
        assert int(fields["version"]) == cheque.version
        assert fields["counted"] == fields["contributions"]
        assert "parked" not in fields
        assert cheque.cheque_id in await read_change_feed(redis, cheque.account_id)
        keys.add(f"view:ledger.cheque:2:{{{cheque.cheque_id}}}")
        state = views.Cheque.State.Name(cheque.state)
        member = f"{cheque.write_time.ToMicroseconds():016x}:{cheque.cheque_id}"
        for name in (
            f"account/{cheque.account_id}",
            f"state/{state}",
            f"account_state/{cheque.account_id}/{state}",
            "all",
        ):
            entries.setdefault(f"index:ledger.cheque:2:{{{name}}}", set()).add(member)
    assert {key.decode() async for key in redis.scan_iter(match="view:ledger.cheque:*", count=1_000)} == keys
    assert await read_indexes(redis) == entries
    assert await read_counters(redis) == expect.counters(cheques)
