"""From a command's commit to its effect in the read model, at a rate that leaves everything time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import time
from uuid import uuid4

import asyncpg
import msgspec
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from bench import requests
from bench.comparison import Contestant, Sample, Void
from bench.environment import Scene
from bench.process_cost import Meter
from bench.services import PLACE
from contracts.streams import aggregate_id
from contracts.view_layout import View
from operations.processes import COMMAND_SERVER, PROJECTOR, RELAY
from runtime.jetstream import Connection, connect

RATE, SECONDS = 300, 4
COUNT = RATE * SECONDS
PATIENCE = 10.0
SCRATCH = "bench"
CHANGED = View.of(Order).change_channel

COMMITTED = """
SELECT stream, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM events ORDER BY position DESC LIMIT $1
"""


async def ours(scene: Scene, redis: Redis) -> Sample:
    """Place orders and listen for the read model's notices of them."""
    asked = scene.write("asked-lag", requests.orders(COUNT))
    seen: dict[str, float] = {}
    async with redis.pubsub() as notices:
        await notices.subscribe(CHANGED)

        async def listen() -> None:
            while len(seen) < COUNT:
                message = await notices.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message is not None:
                    now = time()
                    seen.update(dict.fromkeys(msgspec.msgpack.decode(message["data"])[0], now))

        listening = asyncio.create_task(listen())
        address = scene.stack.of(COMMAND_SERVER)[0].address
        meter = Meter(scene.processes())
        played = await scene.player.play(
            address, PLACE, asked, token=scene.token, count=COUNT, rate=RATE, in_flight=COUNT
        )
        if played.ok != COUNT:
            raise Void(f"of {COUNT} orders {played.ok} were placed")
        scene.recorded += COUNT
        await asyncio.wait_for(listening, PATIENCE)
        cpu = meter.microseconds(COUNT)
    connection = await asyncpg.connect(scene.stack.settings.database_url)
    rows = await connection.fetch(COMMITTED, COUNT)
    await connection.close()
    return _sample([seen[aggregate_id(stream)] - float(committed) for stream, committed in rows], cpu)


async def bare(nats: Connection, redis: Redis) -> Sample:
    """Publish messages one by one, fetch each and write it into a hash."""
    js = nats.js
    await js.add_stream(name=SCRATCH, subjects=[f"{SCRATCH}.>"])
    subscription = await js.pull_subscribe(f"{SCRATCH}.>", durable=SCRATCH)
    lags: list[float] = []

    async def follow() -> None:
        while len(lags) < COUNT:
            (message,) = await subscription.fetch(1, timeout=PATIENCE)
            sent, _, data = message.data.partition(b" ")
            await redis.hset(f"bench:{uuid4()}", mapping={"data": data, "version": 1})
            lags.append(time() - float(sent))
            await message.ack()

    following = asyncio.create_task(follow())
    start = time()
    for number in range(COUNT):
        await asyncio.sleep(max(0.0, start + number / RATE - time()))
        await js.publish(f"{SCRATCH}.orders", f"{time()} ".encode() + b"x" * 600)
    await asyncio.wait_for(following, PATIENCE)
    await js.delete_stream(SCRATCH)
    return _sample(lags)


def _sample(lags: list[float], cpu: Mapping[str, float] = {}) -> Sample:
    lags = sorted(1000 * lag for lag in lags)
    return Sample(RATE, {"50": lags[len(lags) // 2], "99": lags[int(len(lags) * 0.99)]}, cpu, lags)


@asynccontextmanager
async def contestants(scene: Scene) -> AsyncIterator[list[Contestant]]:
    """Yield both, while relay and projector work."""
    settings = scene.stack.settings
    for kind in (RELAY, PROJECTOR):
        await scene.stack.of(kind)[0].start()
    await scene.shown_all()
    async with await connect(settings.nats_url, "bench") as nats, Redis.from_url(settings.redis_url) as redis:
        await nats.ready()

        async def measured() -> Sample:
            return await ours(scene, redis)

        async def ceiling() -> Sample:
            return await bare(nats, redis)

        yield [Contestant("commit to visible", measured), Contestant("publish, fetch, HSET", ceiling)]
    await scene.rest()
