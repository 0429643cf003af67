"""The time from a command's commit to its effect in the read model, at rates below the system's capacity."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import time
from uuid import uuid4

import asyncpg
import msgspec
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from bench import requests
from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import Environment
from bench.hosted_stack import RunningSystem
from bench.load_generator import LoadGenerator, write_requests
from bench.process_cost import CpuMeter
from bench.services import CALLS, PLACE, run_call_echo
from contracts.streams import aggregate_id
from contracts.view_layout import View
from operations.processes import PROJECTOR, RELAY
from runtime.jetstream import Connection, connect

RATES = (100, 200, 300)
"""Orders a second."""
TIMEOUT = 20.0
"""Seconds after the last command within which the last effect has to be visible."""
SCRATCH_STREAM = "bench"
CHANGE_CHANNEL = View.of(Order).change_channel
ECHO, ECHO_PACED = "a call of the echo", f"a call of the echo at {RATES[0]}/s"
"""With as many calls in flight as in other groups, and at the lowest rate, at which a call costs more."""

SELECT_COMMIT_TIMES = """
SELECT stream, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM events
WHERE type ~ 'OrderPlaced$' ORDER BY position DESC LIMIT $1
"""


def name_system(rate: int) -> str:
    """Return the name of the subject that is the system at a rate."""
    return f"commit to visible at {rate}/s"


def name_script(rate: int) -> str:
    """Return the name of the subject that is the bare script at a rate."""
    return f"publish, fetch, HSET at {rate}/s"


async def measure_system(
    system: RunningSystem, generator: LoadGenerator, folder: Path, rate: int, count: int
) -> Sample:
    """Place orders, and receive the read model's change notifications of them.

    Raises:
        InvalidRun: a call failed, or an order did not become visible.
    """
    requests_file = folder / "requests-lag"
    write_requests(requests_file, requests.generate_orders(count))
    visible_at: dict[str, float] = {}
    async with Redis.from_url(system.redis_url) as redis, redis.pubsub() as notifications:
        await notifications.subscribe(CHANGE_CHANNEL)

        async def receive() -> None:
            while len(visible_at) < count:
                message = await notifications.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message is not None:
                    now = time()
                    for order_id in msgspec.msgpack.decode(message["data"])[0]:
                        visible_at.setdefault(order_id, now)

        receiver = asyncio.create_task(receive())
        try:
            meter = CpuMeter(system.processes)
            result = await generator.run(
                *(system.command_address, PLACE, requests_file),
                token=system.token,
                count=count,
                rate=rate,
                in_flight=count,
            )
            if result.ok != count:
                raise InvalidRun(f"of {count} orders {result.ok} were placed")
            await asyncio.wait_for(receiver, TIMEOUT)
            cpu = meter.measure(count)
        except TimeoutError as error:
            raise InvalidRun(f"of {count} orders {len(visible_at)} are visible") from error
        finally:
            receiver.cancel()
    connection = await asyncpg.connect(system.database_url)
    rows = await connection.fetch(SELECT_COMMIT_TIMES, count)
    await connection.close()
    return make_sample(rate, find_lags({stream: float(at) for stream, at in rows}, visible_at), cpu)


def find_lags(committed_at: Mapping[str, float], visible_at: Mapping[str, float]) -> list[float]:
    """Return the time from each stream's commit until its view was visible.

    Raises:
        InvalidRun: they are not the same orders.
    """
    committed = {aggregate_id(stream): at for stream, at in committed_at.items()}
    if committed.keys() != visible_at.keys():
        raise InvalidRun(f"{len(committed)} orders were committed, {len(visible_at)} others became visible")
    return [visible_at[order_id] - at for order_id, at in committed.items()]


async def measure_bare_pipeline(
    environment: Environment, nats: Connection, redis: Redis, rate: int, count: int
) -> Sample:
    """Publish messages one by one, fetch each and write it into a Redis hash."""
    js = nats.js
    await js.add_stream(name=SCRATCH_STREAM, subjects=[f"{SCRATCH_STREAM}.>"])
    subscription = await js.pull_subscribe(f"{SCRATCH_STREAM}.>", durable=SCRATCH_STREAM)
    lags: list[float] = []

    async def consume() -> None:
        while len(lags) < count:
            (message,) = await subscription.fetch(1, timeout=TIMEOUT)
            sent_at, _, data = message.data.partition(b" ")
            await redis.hset(f"bench:{uuid4()}", mapping={"data": data, "version": 1})
            lags.append(time() - float(sent_at))
            await message.ack()

    consumer = asyncio.create_task(consume())
    meter, start = CpuMeter({"script": os.getpid()}, descendants=False), time()
    servers = CpuMeter(environment.select_servers("nats_url", "redis_url"))
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time()))
        await js.publish(f"{SCRATCH_STREAM}.orders", f"{time()} ".encode() + b"x" * 600)
    await asyncio.wait_for(consumer, TIMEOUT)
    cpu = {**meter.measure(count), **servers.measure(count)}
    await js.delete_stream(SCRATCH_STREAM)
    return make_sample(rate, lags, cpu)


def make_sample(rate: int, lags: list[float], cpu: Mapping[str, float]) -> Sample:
    """Return the sample of lags in seconds."""
    lags = sorted(1000 * lag for lag in lags)
    return Sample(rate, {"50": lags[len(lags) // 2], "99": lags[int(len(lags) * 0.99)]}, cpu, lags)


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield the system and the bare pipeline at each rate, with relay and projector running, and an echo."""
    settings = environment.stack.settings
    for kind in (RELAY, PROJECTOR):
        await environment.stack.of(kind)[0].start()
    await environment.wait_for_read_model()
    seconds, calls = environment.plan.seconds, environment.plan.scale(CALLS)
    async with (
        await connect(settings.nats_url, "bench") as nats,
        Redis.from_url(settings.redis_url) as redis,
        run_call_echo(environment) as (echo, process),
    ):
        await nats.wait_until_connected()

        async def run_system(rate: int) -> Sample:
            count = int(rate * seconds)
            sample = await measure_system(
                environment.describe_system(), environment.generator, environment.folder, rate, count
            )
            environment.expected_events += count
            return sample

        async def run_script(rate: int) -> Sample:
            return await measure_bare_pipeline(environment, nats, redis, rate, int(rate * seconds))

        async def run_echo() -> Sample:
            orders = environment.write_requests("requests-echo", requests.generate_orders(calls))
            return await environment.measure(echo, PLACE, orders, calls, processes=process)

        async def run_paced_echo() -> Sample:
            count = int(RATES[0] * seconds)
            orders = environment.write_requests("requests-echo", requests.generate_orders(count))
            return await environment.measure(echo, PLACE, orders, count, rate=RATES[0], processes=process)

        subjects = [Subject(ECHO, run_echo), Subject(ECHO_PACED, run_paced_echo)]
        for rate in RATES:
            subjects += [
                Subject(name_system(rate), partial(run_system, rate)),
                Subject(name_script(rate), partial(run_script, rate)),
            ]
        yield subjects
    await environment.stop_workers()
