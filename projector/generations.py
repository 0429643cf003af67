"""Keeps up to date all generations of one projection: the one that serves, and those beside it.

How it works. Each generation has a runner of its own, which begins, continues or finishes its build as for a
projection that has one generation only. The names are read again and again; a runner starts for a
generation that is new, and ends for one that was pruned. While Redis cannot be read, all go on. A build
pauses while Redis is nearly full, because a full Redis would refuse the writes of all generations.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from contracts.generations import GenerationRecord, GenerationsUnreadable, decode_record, decode_serving
from contracts.view_layout import GENERATION, View
from projector.lua import read_script
from projector.pace import Pace
from projector.projection import Projection
from projector.redis_memory import read_used_percent
from projector.runner import Progress, Runner
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait
from runtime.process.wakeups import wait_for_any

INTERVAL, BUILD_INTERVAL = 1.0, 0.2
"""Seconds between two readings of the names, and while a generation is built beside the one that serves."""
BUILD_LIMIT = 90
"""Percent of Redis's maxmemory from which on builds beside the serving generation pause."""

log = logs.get_logger(__name__)

RunnerFactory = Callable[[Projection[Any], Pace], Runner]
"""Returns the runner of a projection into one generation."""


class Generations:
    """The generations of one projection.

    Args:
        redis: the connection.
        projection: the projection, in any generation.
        create_runner: returns a runner.
        code: the version of the projection's code.
    """

    def __init__(
        self, redis: Redis, projection: Projection[Any], create_runner: RunnerFactory, code: str
    ) -> None:
        self._redis = redis
        self._projection = projection
        self._view: View = projection.view
        self._create_runner = create_runner
        self._code = code
        self._running: dict[str, _RunningGeneration] = {}
        self._failures = logs.RepeatedErrors(
            log, "Generations cannot be read", projection=self._view.projection
        )
        self._unreadable = logs.LimitedErrors(
            log, "Record of a generation cannot be read", projection=self._view.projection
        )
        self._read_script = redis.register_script(read_script("types", "read_generations"))
        self._is_full = False
        self.serving = GENERATION
        """The generation that serves, as it was read last."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep all generations up to date until the process stops, then finish their batches."""
        try:
            while not stopping.is_set():
                await self._read()
                self._check_running()
                await wait_for_any(stopping, timeout=BUILD_INTERVAL if self._is_building() else INTERVAL)
        finally:
            for each in self._running.values():
                each.stopping.set()
            await asyncio.gather(*(each.task for each in self._running.values()), return_exceptions=True)

    def describe_progress(self) -> Progress | None:
        """Return the progress of the serving generation, with the partitions that any of them builds."""
        if self.serving not in self._running:
            return None
        progress = {name: each.runner.describe_progress() for name, each in self._running.items()}
        building = max(each.partitions_building for each in progress.values())
        return progress[self.serving]._replace(partitions_building=building)

    def _is_building(self) -> bool:
        """Return whether this process builds a generation beside the one that serves."""
        return any(
            each.runner.describe_progress().partitions_building
            for name, each in self._running.items()
            if name != self.serving
        )

    async def _read(self) -> None:
        """Read the names and the memory, and start and end runners."""
        try:
            first = self._view.at(GENERATION)
            prefix = first.code.removesuffix(GENERATION)
            reply = await self._read_script(
                keys=[first.serving, first.generations], args=[GENERATION, prefix]
            )
            percent = await read_used_percent(self._redis) if len(self._running) > 1 else None
        except (RedisError, OSError) as error:
            self._failures.report(error)
            return
        self._failures.reset()
        serving, flat, code = reply
        pairs = zip(flat[::2], flat[1::2], strict=True)
        records = {name.decode(errors="replace"): self._decode(name, value) for name, value in pairs}
        await self._take_over(decode_serving(serving), records, (code or b"").decode(errors="replace"))
        self._pause_builds(percent)

    async def _take_over(self, serving: str, records: Mapping[str, GenerationRecord], code: str) -> None:
        if serving != self.serving or not self._running:
            self.serving = serving
            self._report_serving(code)
        wanted: dict[str, GenerationRecord | None] = {**records, serving: None}
        for name in self._running.keys() - wanted:
            await self._end(name)
        for name, record in wanted.items():
            if name not in self._running:
                self._start(name)
            self._running[name].pace.set(record)

    def _decode(self, name: bytes, value: bytes) -> GenerationRecord:
        """Return a record; if it cannot be read, one whose build pauses."""
        try:
            return decode_record(value)
        except GenerationsUnreadable as error:
            self._unreadable.report(generation=name.decode(errors="replace"), error=str(error))
            return GenerationRecord(paused="its record cannot be read")

    def _report_serving(self, code: str) -> None:
        """Log which generation serves, and whether other code has built it."""
        fields = {"projection": self._view.projection, "generation": self.serving}
        if self.serving != GENERATION:
            log.info("Generation serves", **fields)
        if code and code != self._code:
            log.warning("Projection has changed since it was built", **fields)

    def _pause_builds(self, percent: int | None) -> None:
        """Let builds beside the serving generation pause while Redis is nearly full."""
        is_full = percent is not None and percent >= BUILD_LIMIT
        if is_full and not self._is_full:
            log.warning(
                "Builds pause while Redis is nearly full",
                projection=self._view.projection,
                percent=percent,
            )
        self._is_full = is_full
        for name, each in self._running.items():
            each.pace.lacks_memory = is_full and name != self.serving

    def _start(self, name: str) -> None:
        pace, stopping = Pace(), asyncio.Event()
        runner = self._create_runner(self._projection.at(name), pace)
        task = asyncio.create_task(runner.run(stopping), name=f"{self._view.projection} {name}")
        self._running[name] = _RunningGeneration(runner, pace, stopping, task)

    async def _end(self, name: str) -> None:
        """End the runner of a generation that was pruned; what it writes on the way changes nothing."""
        ended = self._running.pop(name)
        log.info("Generation pruned", projection=self._view.projection, generation=name)
        await cancel_and_wait(ended.task)

    def _check_running(self) -> None:
        for each in self._running.values():
            if each.task.done():
                each.task.result()  # a runner ends by itself by an error alone


class _RunningGeneration:
    def __init__(self, runner: Runner, pace: Pace, stopping: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.runner, self.pace, self.stopping, self.task = runner, pace, stopping, task
