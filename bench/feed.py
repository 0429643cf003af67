"""The rates at which relay and projector process a backlog, each against a bare NATS client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic, perf_counter, process_time
from typing import Any

from diptych.ordering.v1.types_pb2 import Order, OrderHistory
from msgspec.structs import replace
from nats.js import api
from redis.asyncio import Redis

from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import CATCH_UP_TIMEOUT, PLACED, Environment, get_pid
from bench.process_cost import CpuMeter
from contracts import streams
from contracts.view_layout import View
from devstack.processes import Process
from operations.processes import PROJECTOR, RELAY
from runtime.jetstream import Connection, Message, StreamReader, connect, read_stream_identity

PUBLISH_WINDOW = 4_000
"""Unacknowledged messages of the bare publisher."""
FETCH_SIZE = 500
SCRATCH_STREAM = "bench"
CHECK_INTERVAL = 0.01
"""Seconds between two checks of a process's progress."""
ORDER_VIEWS = (View.of(Order), View.of(OrderHistory))
"""The views that consume the events of orders."""

RESET_OUTBOX = (
    "UPDATE outbox SET epoch = NULL, sequence = NULL, published_at = NULL",
    "UPDATE relay_state SET epoch = NULL, sequence = 0, leader = NULL",
    "VACUUM ANALYZE outbox",
)
"""Statements that make all events pending again."""


class Feed:
    """Runs relay and projector on a backlog of all events; both are stopped before and after a run."""

    def __init__(self, environment: Environment, nats: Connection, redis: Redis) -> None:
        self._environment = environment
        self._nats = nats
        self._redis = redis
        self._messages: list[Message] = []
        stack = environment.stack
        (self._relay,), (self._projector,) = stack.of(RELAY), stack.of(PROJECTOR)

    async def relay(self) -> Sample:
        """Publish the backlog into a new stream with the relay."""
        await self._nats.js.delete_stream(streams.JETSTREAM)
        await self._environment.execute(*RESET_OUTBOX)
        return await self._measure(self._relay, ("database_url", "nats_url"), self._count_published)

    async def publish(self) -> Sample:
        """Publish the same messages with a bare client."""
        await self._nats.js.add_stream(name=SCRATCH_STREAM, subjects=[f"{SCRATCH_STREAM}.>"])
        js = self._nats.client.jetstream(publish_async_max_pending=PUBLISH_WINDOW)
        messages = await self._read_messages()
        count = self._environment.placed_orders
        nats = CpuMeter(self._environment.select_servers("nats_url"))
        start, cpu = perf_counter(), process_time()
        for message in messages:
            await js.publish_async(message.subject, message.data, headers=dict(message.headers))
        # After an error this future never completes, hence the timeout.
        await asyncio.wait_for(js.publish_async_completed(), CATCH_UP_TIMEOUT)
        seconds, own_cpu = perf_counter() - start, process_time() - cpu
        await self._nats.js.delete_stream(SCRATCH_STREAM)
        return Sample(count / seconds, cpu={"publisher": own_cpu * 1e6 / count, **nats.measure(count)})

    async def project(self) -> Sample:
        """Build all views of orders from an empty Redis."""
        await self._flush_all_but_skips()
        return await self._measure(self._projector, ("nats_url", "redis_url"), self._count_projected)

    async def _flush_all_but_skips(self) -> None:
        """Empty Redis except for the events to skip, for which a projector would ask the relay."""
        kept: dict[bytes, Any] = {
            key: await self._redis.dump(key) async for key in self._redis.scan_iter("skips:*")
        }
        await self._redis.flushall()
        for key, value in kept.items():
            await self._redis.restore(key, 0, value)

    async def fetch(self) -> Sample:
        """Fetch and acknowledge the same messages with a bare client."""
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.EXPLICIT, max_ack_pending=-1)
        subscription = await self._nats.js.pull_subscribe(
            "", durable=SCRATCH_STREAM, stream=streams.JETSTREAM, config=config
        )
        total = self._environment.placed_orders
        nats = CpuMeter(self._environment.select_servers("nats_url"))
        start, cpu, count = perf_counter(), process_time(), 0
        while count < total:
            for message in await subscription.fetch(FETCH_SIZE):
                await message.ack()
                count += 1
        seconds, own_cpu = perf_counter() - start, process_time() - cpu
        await self._nats.js.delete_consumer(streams.JETSTREAM, SCRATCH_STREAM)
        return Sample(total / seconds, cpu={"fetcher": own_cpu * 1e6 / total, **nats.measure(total)})

    async def _measure(
        self, process: Process, servers: Sequence[str], count_done: Callable[[], Awaitable[int]]
    ) -> Sample:
        """Start a process and time it from its first result to its last, so without its start."""
        total = self._environment.placed_orders
        await process.start(ready=False)
        try:
            first = await self._wait(process.name, 1, count_done)
            meter = CpuMeter({process.name: get_pid(process), **self._environment.select_servers(*servers)})
            start = perf_counter()
            done = await self._wait(process.name, total, count_done)
            sample = Sample((total - first) / (perf_counter() - start), cpu=meter.measure(total - first))
        finally:
            await process.stop()
        if done != total:
            raise InvalidRun(f"{process.name} processed {done} events, there are {total}")
        return sample

    async def _wait(self, name: str, least: int, count_done: Callable[[], Awaitable[int]]) -> int:
        """Return how many events a process has processed, as soon as there are so many."""
        deadline = monotonic() + CATCH_UP_TIMEOUT
        while (done := await count_done()) < least:
            if monotonic() > deadline:
                raise InvalidRun(f"{name} processed {done} of {least} events in {CATCH_UP_TIMEOUT:.0f} s")
            await asyncio.sleep(CHECK_INTERVAL)
        return done

    async def _count_published(self) -> int:
        identity = await read_stream_identity(self._nats.js)
        return identity.last_sequence if identity else 0

    async def _count_projected(self) -> int:
        """Return the number of orders in the read model; one less until the views are equally far."""
        total = self._environment.placed_orders
        orders, histories = [await self._redis.hgetall(view.checkpoints) for view in ORDER_VIEWS]
        placed = int(await self._redis.zcard(PLACED))
        return min(placed, total - 1) if placed < total or orders != histories else total

    async def _read_messages(self) -> list[Message]:
        """Return all messages of the stream, read once."""
        if not self._messages:
            identity = await read_stream_identity(self._nats.js)
            if identity is None:
                raise InvalidRun("the event stream does not exist")
            reader = await StreamReader.open(self._nats, identity.epoch, 1)
            while len(self._messages) < self._environment.placed_orders:
                self._messages += map(_to_scratch, await reader.read_batch(1_000, 5.0))
            await reader.close()
        return self._messages


def _to_scratch(message: Message) -> Message:
    """Return a message for the scratch stream, without the headers that fence the relay."""
    headers = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
    return replace(message, subject=f"{SCRATCH_STREAM}.{message.subject}", headers=headers)


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield relay and projector, each with its ceiling."""
    settings = environment.stack.settings
    async with (
        await connect(settings.nats_url, "bench") as nats,
        Redis.from_url(settings.redis_url) as redis,
    ):
        await nats.wait_until_connected()
        feed = Feed(environment, nats, redis)
        yield [
            Subject("relay", feed.relay),
            Subject("bare publish", feed.publish),
            Subject("projector", feed.project),
            Subject("fetch and ack", feed.fetch),
        ]
