"""Three times as many calls as a server can answer: what it still answers, and how it is afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from bench import requests
from bench.comparison import Contestant, Sample, Void
from bench.environment import IN_FLIGHT, Scene, pid
from bench.load_generator import Played
from bench.process_cost import Meter, memory
from bench.services import GET, PLACE
from devstack.processes import Process
from operations.processes import COMMAND_SERVER, QUERY_SERVER

TIMES = 3
SECONDS = 5.0
DEADLINE = 5.0
"""Seconds that each call has, as callers should give them."""
REST = 10.0
"""Seconds after which everything has to be as before."""
MOST = 50_000
"""Calls under way at most."""


class Overload:
    """One method of one server: at its peak, at three times that, and after a rest."""

    def __init__(self, scene: Scene, name: str, method: str, process: Process, events: int) -> None:
        self._scene = scene
        self._name = name
        self._method = method
        self._process = process
        self._events = events
        self._peak = 0.0

    def contestants(self) -> list[Contestant]:
        """Return the three."""
        return [
            Contestant(f"{self._name}, peak", self.peak),
            Contestant(f"{self._name} at {TIMES} times that", self.beyond),
            Contestant(f"{self._name}, {REST:.0f} s later", partial(self.peak, after=REST)),
        ]

    async def peak(self, after: float = 0.0) -> Sample:
        """Send as much as is answered."""
        await asyncio.sleep(after)
        played = await self._played(SECONDS, in_flight=IN_FLIGHT)
        if played.ok != sum(played.statuses.values()):
            raise Void(f"{self._name} was answered {dict(played.statuses)}")
        if not after:
            self._peak = played.rate
        return Sample(played.rate, played.latency)

    async def beyond(self) -> Sample:
        """Send three times as much, however slow the answers are."""
        before, process = memory(pid(self._process)), {self._process.name: pid(self._process)}
        meter = Meter(process)
        played = await self._played(SECONDS, in_flight=MOST, rate=TIMES * self._peak, deadline=DEADLINE)
        refusals = [played.refusal.get(which, 0.0) for which in ("50", "99")]
        grown = (memory(pid(self._process)) - before) / 1e6
        print(
            f"  {self._name} at {TIMES * self._peak:,.0f}/s: {dict(played.statuses)} by status, "
            f"turned away after {refusals[0]:.0f} ms (99 %: {refusals[1]:.0f}), {grown:+.0f} MB",
            flush=True,
        )
        return Sample(played.rate, played.latency, meter.microseconds(sum(played.statuses.values())))

    async def _played(
        self, seconds: float, in_flight: int, rate: float = 0.0, deadline: float = 0.0
    ) -> Played:
        recorded = await self._scene.scalar("SELECT count(*) FROM events")
        played = await self._scene.player.play(
            self._process.address,
            self._method,
            self._asked(int(seconds * (rate or 3 * self._peak or 5_000))),
            token=self._scene.token,
            seconds=seconds,
            in_flight=in_flight,
            rate=rate,
            deadline=deadline,
        )
        await self._scene.recount()
        new = self._scene.recorded - recorded
        if not self._events * played.ok <= new <= self._events * sum(played.statuses.values()):
            raise Void(f"{played.ok} calls of {self._name} were answered OK, {new} events were recorded")
        return played

    def _asked(self, count: int) -> Path:
        orders = (
            requests.orders(count) if self._events else requests.reads("o-", self._scene.placed, 0, count)
        )
        return self._scene.write("asked-overload", orders)


@asynccontextmanager
async def contestants(scene: Scene) -> AsyncIterator[list[Contestant]]:
    """Yield queries, then commands."""
    query, command = scene.stack.of(QUERY_SERVER)[0], scene.stack.of(COMMAND_SERVER)[0]
    yield [
        *Overload(scene, "GetOrder", GET, query, 0).contestants(),
        *Overload(scene, "PlaceOrder", PLACE, command, 1).contestants(),
    ]
