"""Orders' events as a relay publishes them, projectors in this process, and what the views should be."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1 import types_pb2 as views
from google.protobuf.message import Message
from nats.js import api
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent, to_headers
from projector.feed import JetStreamFeed
from projector.leases import RedisLeases
from projector.projection import Projection
from projector.projections.ordering.order import ORDERS
from projector.redis_connection import connect as connect_redis
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from projector.runner import Runner
from projector.writer import Observe
from runtime.jetstream import Connection, connect
from runtime.jetstream.stream import COMPLETE, EPOCH, INCARNATION
from tests.support.builders import expected_events as expect

VIEW = ORDERS.view
INCARNATION_ID = str(uuid4())
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def placed(order_id: str, customer: str = "c-1", minute: int = 0) -> events.OrderPlaced:
    event = events.OrderPlaced(order_id=order_id, customer_id=customer, account_id="a-1", warehouse_id="w-1")
    event.lines.add(sku="s-1", title="Thing", quantity=2)
    event.lines[0].unit_price.currency_code = event.total.currency_code = "EUR"
    event.lines[0].unit_price.units, event.total.units, event.total.nanos = 6, 12, 340_000_000
    event.personal.shipping_address.recipient = "Alice"
    event.placed_at.FromDatetime(START.replace(minute=minute))
    return event


def confirmed(order_id: str) -> events.OrderConfirmed:
    event = events.OrderConfirmed(order_id=order_id)
    event.confirmed_at.FromDatetime(START)
    return event


def cancelled(order_id: str, reason: str = "changed my mind") -> events.OrderCancelled:
    event = events.OrderCancelled(order_id=order_id, reason=reason)
    event.cancelled_at.FromDatetime(START)
    return event


def recorded(version: int, event: Message, **metadata: str) -> RecordedEvent:
    order_id: str = event.order_id  # type: ignore[attr-defined]
    return RecordedEvent(
        stream=f"ordering.order.{order_id}",
        version=version,
        type=event.DESCRIPTOR.full_name,
        data=event.SerializeToString(),
        recorded_at=datetime.now(UTC),
        position=version,
        metadata=metadata,
    )


def history(order_id: str, customer: str = "c-1", minute: int = 0) -> list[RecordedEvent]:
    """Return an order's whole life."""
    story = (placed(order_id, customer, minute), confirmed(order_id), cancelled(order_id))
    return [recorded(version, event) for version, event in enumerate(story, 1)]


class Events:
    """Stands where a relay would: makes the stream and publishes events, in whatever order a test wants."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.epoch = ""

    async def create(self, *, complete: bool = True, incarnation: str = INCARNATION_ID) -> None:
        """Make the stream, of a new epoch."""
        self.epoch = str(uuid4())
        await self.connection.js.add_stream(self._config(complete, incarnation))

    async def fill(self, incarnation: str = INCARNATION_ID) -> None:
        """Say that the stream now holds all earlier events."""
        await self.connection.js.update_stream(self._config(True, incarnation))

    async def delete(self) -> None:
        await self.connection.js.delete_stream(streams.JETSTREAM)

    def _config(self, complete: bool, incarnation: str) -> api.StreamConfig:
        return api.StreamConfig(
            name=streams.JETSTREAM,
            subjects=[streams.SUBJECTS],
            allow_direct=True,
            metadata={EPOCH: self.epoch, INCARNATION: incarnation, COMPLETE: str(complete).lower()},
        )

    async def publish(self, *published: RecordedEvent) -> None:
        """Publish events and wait until the stream has them."""
        acks = [
            await self.connection.js.publish_async(
                streams.subject(event.stream), event.data, headers=to_headers(event)
            )
            for event in published
        ]
        async with asyncio.timeout(60):
            await asyncio.gather(*acks)


@asynccontextmanager
async def publisher(nats_url: str) -> AsyncIterator[Events]:
    async with await connect(nats_url, "publisher") as connection:
        await connection.ready()
        yield Events(connection)


@dataclass
class Running:
    """A projector of this process; `kill` ends it as SIGKILL would: nothing is finished or given back."""

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
        while running := [task for task in self.tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=1)  # wait_for of Python 3.11 may swallow a cancellation

    async def died(self) -> BaseException | None:
        """Wait until the runner has ended by itself, and return what it died of."""
        await asyncio.wait({self.tasks[0]}, timeout=20)
        return self.tasks[0].exception()


class Killed(BaseException):
    """SIGKILL, as far as a test can tell: nobody catches it."""


def dying(step: str, when: str, nth: int = 1) -> type[RedisStore]:
    """Return a store whose projector is killed before or after the nth time that it takes a step."""

    class Dying(RedisStore):
        calls = 0

    inner = getattr(RedisStore, step)

    async def last(self: Dying, *args: Any) -> Any:
        self.calls += 1
        if self.calls == nth and when == "before":
            raise Killed
        result = await inner(self, *args)
        if self.calls == nth:
            raise Killed
        return result

    setattr(Dying, step, last)
    return Dying


def pausing(step: str) -> type[RedisStore]:
    """Return a store that waits before each time it takes a step, until `go` is set, and sets `went` then."""

    class Pausing(RedisStore):
        def __init__(self, redis: Redis, view: Any) -> None:
            super().__init__(redis, view)
            self.waits = asyncio.Event()
            self.go = asyncio.Event()
            self.went = asyncio.Event()

    inner = getattr(RedisStore, step)

    async def held_up(self: Pausing, *args: Any) -> Any:
        self.waits.set()
        await self.go.wait()
        try:
            return await inner(self, *args)
        finally:
            self.went.set()

    setattr(Pausing, step, held_up)
    return Pausing


@asynccontextmanager
async def projector(
    redis_url: str,
    nats_url: str,
    *,
    projection: Projection[Any] = ORDERS,
    store: Callable[[Redis, Any], RedisStore] = RedisStore,
    retries: RetryPolicy = RetryPolicy(first_pause=0.05),  # noqa: B008 - it is frozen
    observe: Observe = lambda _: None,
    partitions: Iterable[int] | None = None,
) -> AsyncIterator[Running]:
    """Run a projector.

    Args:
        redis_url: where the views go.
        nats_url: where the events are.
        projection: what to make of them.
        store: makes the store.
        retries: when to try again what cannot be applied; soon.
        observe: is told of writes.
        partitions: those it works on, without asking for leases; None to share them by leases.
    """
    async with connect_redis(redis_url) as redis, await connect(nats_url, "projector") as connection:
        await connection.ready()
        views_store, leases = store(redis, projection.view), RedisLeases(redis)
        if partitions is not None:
            leases._held = frozenset(partitions)
        feed = JetStreamFeed(connection, projection.view.source_streams)
        runner = Runner(projection, views_store, feed, leases, retries, observe)
        running = Running(views_store, leases, [])
        running.tasks = [asyncio.create_task(runner.run(running.stopping))]
        if partitions is None:
            running.tasks.append(asyncio.create_task(leases.keep()))
        try:
            yield running
        finally:
            await running.kill()


EVERY = range(streams.PARTITIONS)


async def view(redis: Redis, order_id: str) -> dict[str, bytes]:
    """Return a view's hash."""
    found: Any = await redis.hgetall(f"view:ordering.order:2:{{{order_id}}}")
    return {name.decode(): value for name, value in found.items()}


async def version(redis: Redis, order_id: str) -> int:
    return int(await redis.hget(f"view:ordering.order:2:{{{order_id}}}", "version") or 0)


async def present(redis: Redis) -> bool:
    return bool(await redis.exists("ready:ordering.order:2"))


async def indexes(redis: Redis) -> dict[str, set[str]]:
    """Return every index with its members."""
    keys = [key async for key in redis.scan_iter(match="index:*", count=1_000)]
    return {key.decode(): set(await members(redis, key)) for key in sorted(keys)}


async def members(redis: Redis, index: bytes | str) -> list[str]:
    """Return an index's members, oldest first."""
    found: Any = await redis.zrange(index, 0, -1)
    return [member.decode() for member in found]


async def all_written(redis: Redis, lives: Iterable[Sequence[RecordedEvent]]) -> bool:
    """Return whether every order's view has come to its last event."""
    async with redis.pipeline(transaction=False) as pipe:
        lives = list(lives)
        for life in lives:
            pipe.hget(VIEW.key(streams.aggregate_id(life[0].stream)), "version")
        found = await pipe.execute()
    return all(int(at or 0) == life[-1].version for at, life in zip(found, lives, strict=True))


async def totals(redis: Redis) -> dict[str, dict[str, int]]:
    """Return all counters by their keys."""
    keys = [key async for key in redis.scan_iter(match="counters:*", count=1_000)]
    found: dict[str, Any] = {key.decode(): await redis.hgetall(key) for key in keys}
    return {key: {name.decode(): int(at) for name, at in all_.items()} for key, all_ in found.items()}


async def changes(redis: Redis, customer: str = "c-1") -> dict[str, int]:
    """Return a customer's changed orders with the numbers of their changes."""
    key = f"change_feed:ordering.order:2:{{customer/{customer}}}"
    found: Any = await redis.zrange(key, 0, -1, withscores=True)
    return {order_id.decode(): int(number) for order_id, number in found}


async def assert_views(redis: Redis, lives: Iterable[Sequence[RecordedEvent]]) -> None:
    """Assert that Redis holds exactly these orders, and exactly what is derived from them."""
    entries: dict[str, set[str]] = {}
    keys, orders = set(), [expect.order(life) for life in lives]
    for order in orders:
        found = await view(redis, order.order_id)
        assert views.Order.FromString(found["data"]) == order
        assert int(found["version"]) == order.version
        assert found["counted"] == found["contributions"]
        assert "parked" not in found
        assert order.order_id in await changes(redis, order.customer_id)
        keys.add(f"view:ordering.order:2:{{{order.order_id}}}")
        state = views.Order.State.Name(order.state)
        member = f"{order.place_time.ToMicroseconds():016x}:{order.order_id}"
        for name in (
            f"customer/{order.customer_id}",
            f"state/{state}",
            f"customer_state/{order.customer_id}/{state}",
            "all",
        ):
            entries.setdefault(f"index:ordering.order:2:{{{name}}}", set()).add(member)
    assert {key.decode() async for key in redis.scan_iter(match="view:ordering.order:*", count=1_000)} == keys
    assert await indexes(redis) == entries
    assert await totals(redis) == expect.sums(orders)
