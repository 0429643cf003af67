"""The time from a command's commit to its effect in the read model, at a rate below the system's capacity."""

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
from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import Environment
from bench.process_cost import CpuMeter
from bench.services import PLACE
from contracts.streams import aggregate_id
from contracts.view_layout import View
from operations.processes import COMMAND_SERVER, PROJECTOR, RELAY
from runtime.jetstream import Connection, connect

RATE, SECONDS = 300, 4
COUNT = RATE * SECONDS
TIMEOUT = 10.0
"""Seconds after the last command within which the last effect has to be visible."""
SCRATCH_STREAM = "bench"
CHANGE_CHANNEL = View.of(Order).change_channel

SELECT_COMMIT_TIMES = """
SELECT stream, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM events ORDER BY position DESC LIMIT $1
"""


async def measure_system(environment: Environment, redis: Redis) -> Sample:
    """Place orders, and receive the read model's change notifications of them."""
    requests_file = environment.write_requests("requests-lag", requests.generate_orders(COUNT))
    visible_at: dict[str, float] = {}
    async with redis.pubsub() as notifications:
        await notifications.subscribe(CHANGE_CHANNEL)

        async def receive() -> None:
            while len(visible_at) < COUNT:
                message = await notifications.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message is not None:
                    now = time()
                    visible_at.update(dict.fromkeys(msgspec.msgpack.decode(message["data"])[0], now))

        receiver = asyncio.create_task(receive())
        address = environment.stack.of(COMMAND_SERVER)[0].address
        meter = CpuMeter(environment.list_processes())
        result = await environment.generator.run(
            address,
            PLACE,
            requests_file,
            token=environment.token,
            count=COUNT,
            rate=RATE,
            in_flight=COUNT,
        )
        if result.ok != COUNT:
            raise InvalidRun(f"of {COUNT} orders {result.ok} were placed")
        environment.expected_events += COUNT
        await asyncio.wait_for(receiver, TIMEOUT)
        cpu = meter.measure(COUNT)
    connection = await asyncpg.connect(environment.stack.settings.database_url)
    rows = await connection.fetch(SELECT_COMMIT_TIMES, COUNT)
    await connection.close()
    lags = [visible_at[aggregate_id(stream)] - float(committed_at) for stream, committed_at in rows]
    return _make_sample(lags, cpu)


async def measure_bare_pipeline(nats: Connection, redis: Redis) -> Sample:
    """Publish messages one by one, fetch each and write it into a Redis hash."""
    js = nats.js
    await js.add_stream(name=SCRATCH_STREAM, subjects=[f"{SCRATCH_STREAM}.>"])
    subscription = await js.pull_subscribe(f"{SCRATCH_STREAM}.>", durable=SCRATCH_STREAM)
    lags: list[float] = []

    async def consume() -> None:
        while len(lags) < COUNT:
            (message,) = await subscription.fetch(1, timeout=TIMEOUT)
            sent_at, _, data = message.data.partition(b" ")
            await redis.hset(f"bench:{uuid4()}", mapping={"data": data, "version": 1})
            lags.append(time() - float(sent_at))
            await message.ack()

    consumer = asyncio.create_task(consume())
    start = time()
    for number in range(COUNT):
        await asyncio.sleep(max(0.0, start + number / RATE - time()))
        await js.publish(f"{SCRATCH_STREAM}.orders", f"{time()} ".encode() + b"x" * 600)
    await asyncio.wait_for(consumer, TIMEOUT)
    await js.delete_stream(SCRATCH_STREAM)
    return _make_sample(lags)


def _make_sample(lags: list[float], cpu: Mapping[str, float] = {}) -> Sample:
    """Return the sample of lags in seconds."""
    lags = sorted(1000 * lag for lag in lags)
    return Sample(RATE, {"50": lags[len(lags) // 2], "99": lags[int(len(lags) * 0.99)]}, cpu, lags)


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield the system and the bare pipeline, with relay and projector running."""
    settings = environment.stack.settings
    for kind in (RELAY, PROJECTOR):
        await environment.stack.of(kind)[0].start()
    await environment.wait_for_read_model()
    async with await connect(settings.nats_url, "bench") as nats, Redis.from_url(settings.redis_url) as redis:
        await nats.wait_until_connected()

        async def run_system() -> Sample:
            return await measure_system(environment, redis)

        async def run_bare_pipeline() -> Sample:
            return await measure_bare_pipeline(nats, redis)

        yield [Subject("commit to visible", run_system), Subject("publish, fetch, HSET", run_bare_pipeline)]
    await environment.stop_workers()
