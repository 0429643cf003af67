"""The lag of live events while generations of a projection are built, and while a release is rehearsed."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import CATCH_UP_TIMEOUT, Environment
from bench.lag import measure_system
from contracts.view_layout import View
from devstack.stack import variables
from operations.processes import PROJECTOR, RELAY
from operations_server.generations.store import GenerationStore

RATE = 100
"""Orders a second."""
GENTLE = 5_000
"""Events a second of a build or a rehearsal that leaves room for others."""
ALONE = f"commit to visible at {RATE}/s alone"
CHECK_INTERVAL = 0.05


def name_builds(rate: int) -> str:
    """Return the name of the subject beside builds of this rate; 0 for full speed."""
    return f"visible at {RATE}/s beside builds{_name_rate(rate)}"


def name_rehearsals(rate: int) -> str:
    """Return the name of the subject beside rehearsals of this rate; 0 for full speed."""
    return f"visible at {RATE}/s beside rehearsals{_name_rate(rate)}"


def _name_rate(rate: int) -> str:
    return f" of {rate:,}/s" if rate else ""


class Maintenance:
    """Measures the lag of orders beside something that reads all events again and again.

    Args:
        environment: with relay and projector running.
        redis: its Redis.
    """

    def __init__(self, environment: Environment, redis: Redis) -> None:
        self._environment = environment
        self._redis = redis
        self._generations = GenerationStore(redis, View.of(Order))

    async def measure(self) -> Sample:
        count = int(RATE * self._environment.plan.seconds)
        system, generator = self._environment.describe_system(), self._environment.generator
        sample = await measure_system(system, generator, self._environment.folder, RATE, count)
        self._environment.expected_events += count
        return sample

    async def measure_beside_builds(self, rate: int) -> Sample:
        """Measure while generations of the orders are built, one after the other.

        Raises:
            InvalidRun: nothing was built.
        """
        begun = asyncio.Event()
        building = asyncio.create_task(self._build_forever(rate, begun))
        try:
            await asyncio.wait([building, asyncio.create_task(begun.wait())], return_when="FIRST_COMPLETED")
            sample = await self.measure()
            if building.done():
                raise InvalidRun("builds have ended before the measurement") from building.exception()
        finally:
            building.cancel()
            await asyncio.wait([building])
            await self._prune()
        return sample

    async def _build_forever(self, rate: int, begun: asyncio.Event) -> None:
        while True:
            name = await self._generations.begin(await self._generations.read(), rate or None)
            if name is None:
                raise InvalidRun("somebody else builds a generation")
            view = View.of(Order).at(name)
            await self._wait_for(view.checkpoints)
            begun.set()
            await self._wait_for(view.ready)
            await self._generations.prune(view)

    async def _wait_for(self, key: str) -> None:
        async with asyncio.timeout(CATCH_UP_TIMEOUT):
            while not await self._redis.exists(key):
                await asyncio.sleep(CHECK_INTERVAL)

    async def _prune(self) -> None:
        for state in await self._generations.read():
            if not state.serves:
                await self._generations.prune(state.view)

    async def measure_beside_rehearsals(self, rate: int) -> Sample:
        """Measure while the code is rehearsed again and again.

        Raises:
            InvalidRun: a rehearsal has failed.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.rehearsals", str(rate)),
            env={**os.environ, **variables(self._environment.stack.settings)},
            stdout=PIPE,
        )
        try:
            if process.stdout is None or not await process.stdout.readline():
                raise InvalidRun("the rehearsal has ended before it began")
            sample = await self.measure()
            if process.returncode is not None:
                raise InvalidRun("the rehearsals have ended before the measurement")
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        return sample


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield the lag alone, beside builds and beside rehearsals, each at full speed and at a gentle rate."""
    for kind in (RELAY, PROJECTOR):
        await environment.stack.of(kind)[0].start()
    await environment.wait_for_read_model()
    async with Redis.from_url(environment.stack.settings.redis_url) as redis:
        maintenance = Maintenance(environment, redis)
        subjects = [Subject(ALONE, maintenance.measure)]
        for rate in (0, GENTLE):
            subjects += [
                Subject(name_builds(rate), partial(maintenance.measure_beside_builds, rate)),
                Subject(name_rehearsals(rate), partial(maintenance.measure_beside_rehearsals, rate)),
            ]
        yield subjects
    await environment.stop_workers()
