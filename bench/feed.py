"""How fast relay and projector work a backlog off, each beside a client of NATS that does nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic, perf_counter, process_time

from diptych.ordering.v1.types_pb2 import Order, OrderHistory
from msgspec.structs import replace
from nats.js import api
from redis.asyncio import Redis

from bench.comparison import Contestant, Sample, Void
from bench.environment import PATIENCE, PLACED, Scene, pid
from bench.process_cost import Meter
from contracts import streams
from contracts.view_layout import View
from devstack.processes import Process
from operations.processes import PROJECTOR, RELAY
from operations.projections import wait_until_ready
from runtime.jetstream import Connection, Message, StreamReader, connect, read_stream_identity

WINDOW = 4_000
"""Messages that a bare publisher has under way."""
FETCH = 500
SCRATCH = "bench"
LOOK = 0.01
"""Seconds between looks at how far something is."""
FOLLOWERS = (View.of(Order), View.of(OrderHistory))
"""The views that follow orders."""

FORGET = (
    "UPDATE outbox SET epoch = NULL, sequence = NULL, published_at = NULL",
    "UPDATE relay_state SET epoch = NULL, sequence = 0, leader = NULL",
    "VACUUM ANALYZE outbox",
)
"""Makes all events pending again."""


class Feed:
    """Relay and projector on a backlog of all events that there are; both rest before and after."""

    def __init__(self, scene: Scene, nats: Connection, redis: Redis) -> None:
        self._scene = scene
        self._nats = nats
        self._redis = redis
        self._messages: list[Message] = []
        (self._relay,), (self._projector,) = scene.stack.of(RELAY), scene.stack.of(PROJECTOR)

    async def relay(self) -> Sample:
        """Publish the backlog into a new stream."""
        await self._nats.js.delete_stream(streams.JETSTREAM)
        await self._scene.execute(*FORGET)
        sample = await self._timed(self._relay, self._scene.placed, self._published)
        await self._relay.stop()
        return sample

    async def publish(self) -> Sample:
        """Publish the same messages as fast as the client can."""
        await self._nats.js.add_stream(name=SCRATCH, subjects=[f"{SCRATCH}.>"])
        js = self._nats.client.jetstream(publish_async_max_pending=WINDOW)
        messages = await self._all()
        start, cpu = perf_counter(), process_time()
        for message in messages:
            await js.publish_async(message.subject, message.data, headers=dict(message.headers))
        await asyncio.wait_for(js.publish_async_completed(), PATIENCE)  # on an error it would wait for ever
        seconds, own = perf_counter() - start, process_time() - cpu
        await self._nats.js.delete_stream(SCRATCH)
        return Sample(self._scene.placed / seconds, cpu={"publisher": own * 1e6 / self._scene.placed})

    async def project(self) -> Sample:
        """Fill all views that follow orders, from nothing."""
        await self._redis.flushall()
        sample = await self._timed(self._projector, self._scene.placed, self._projected)
        await wait_until_ready(self._scene.stack.settings.redis_url)
        await self._projector.stop()
        return sample

    async def fetch(self) -> Sample:
        """Fetch and acknowledge the same messages, and do nothing with them."""
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.EXPLICIT, max_ack_pending=-1)
        subscription = await self._nats.js.pull_subscribe(
            "", durable=SCRATCH, stream=streams.JETSTREAM, config=config
        )
        start, cpu, count = perf_counter(), process_time(), 0
        while count < self._scene.placed:
            for message in await subscription.fetch(FETCH):
                await message.ack()
                count += 1
        seconds, own = perf_counter() - start, process_time() - cpu
        await self._nats.js.delete_consumer(streams.JETSTREAM, SCRATCH)
        return Sample(self._scene.placed / seconds, cpu={"fetcher": own * 1e6 / self._scene.placed})

    async def _timed(self, process: Process, count: int, done: Callable[[], Awaitable[int]]) -> Sample:
        """Start a process and time it from its first result to its last."""
        deadline = monotonic() + PATIENCE
        await process.start(ready=False)
        while not (before := await done()):
            await asyncio.sleep(LOOK)
        meter, start = Meter({process.name: pid(process)}), perf_counter()
        while (now := await done()) < count:
            if monotonic() > deadline:
                raise Void(f"{process.name} came to {now} of {count} in {PATIENCE:.0f} s")
            await asyncio.sleep(LOOK)
        seconds = perf_counter() - start
        return Sample((count - before) / seconds, cpu=meter.microseconds(count - before))

    async def _published(self) -> int:
        identity = await read_stream_identity(self._nats.js)
        return identity.last_sequence if identity else 0

    async def _projected(self) -> int:
        """Return how many events all views that follow orders have taken in; one less until all have all."""
        orders, histories = [await self._redis.hgetall(view.checkpoints) for view in FOLLOWERS]
        placed = int(await self._redis.zcard(PLACED))
        return (
            min(placed, self._scene.placed - 1)
            if placed < self._scene.placed or orders != histories
            else self._scene.placed
        )

    async def _all(self) -> list[Message]:
        """Return the stream's messages."""
        if not self._messages:
            identity = await read_stream_identity(self._nats.js)
            if identity is None:
                raise Void("there is no stream")
            reader = await StreamReader.open(self._nats, identity.epoch, 1)
            while len(self._messages) < self._scene.placed:
                self._messages += map(_plain, await reader.read_batch(1_000, 5.0))
            await reader.close()
        return self._messages


def _plain(message: Message) -> Message:
    """Return a message as anybody may publish it, without the headers of the relay's fences."""
    headers = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
    return replace(message, subject=f"{SCRATCH}.{message.subject}", headers=headers)


@asynccontextmanager
async def contestants(scene: Scene) -> AsyncIterator[list[Contestant]]:
    """Yield both and their ceilings, while relay and projector rest."""
    settings = scene.stack.settings
    async with (
        await connect(settings.nats_url, "bench") as nats,
        Redis.from_url(settings.redis_url) as redis,
    ):
        await nats.ready()
        feed = Feed(scene, nats, redis)
        yield [
            Contestant("relay", feed.relay),
            Contestant("bare publish", feed.publish),
            Contestant("projector", feed.project),
            Contestant("fetch and ack", feed.fetch),
        ]


async def catch_up(scene: Scene, patience: float = PATIENCE) -> None:
    """Let relay and projector work off what there is, without measuring it."""
    for kind in (RELAY, PROJECTOR):
        await scene.stack.of(kind)[0].start()
    await scene.shown_all(patience)
    await scene.rest()
