"""`make bench-growth`: what 10,000 to 1,000,000 orders change, and what a rebuild of them takes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import uvloop
from diptych.ordering.v1.types_pb2 import Order, OrderHistory
from redis.asyncio import Redis

from bench import report
from bench.comparison import Comparison, Contestant, Results, Sample, Void, interleave, percentile
from bench.environment import Scene, pid
from bench.feed import catch_up
from bench.load_generator import Player
from bench.process_cost import memory
from bench.services import Served
from contracts.view_layout import View
from devstack.stacks import temporary_stack
from operations.processes import PROJECTOR
from runtime.process import logs
from runtime.process.start_error import StartError

SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = 5
REBUILT = (View.of(Order), View.of(OrderHistory))
PATIENCE = 3_600.0
"""Seconds that relay and projector may take."""
LOOK = 1.0
"""Seconds between two looks at a rebuild."""
MEASURES = ("GetOrder", "PlaceOrder", "ListOrders")
LISTED = "ListOrders by customer and state"


def at(name: str, orders: int) -> str:
    """Return what a contestant is called while there are so many orders."""
    return f"{name} of {orders:,}"


TABLE = (
    *(Comparison(at(name, size), at(name, SIZES[0]), 0.90, 1.0) for name in MEASURES for size in SIZES[1:]),
    Comparison(at("rebuild", SIZES[-1]), at("rebuild", SIZES[0]), 0.90, 1.0),
)


class Growth:
    """A system that grows, and is measured at each size."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._served = Served(scene)
        self._results: Results = {}

    async def measure(self) -> Results:
        """Grow to each size and measure there."""
        for size in SIZES:
            start = monotonic()
            await self._scene.fill(size - self._scene.placed)
            filled = monotonic() - start
            await catch_up(self._scene, PATIENCE)
            print(
                f"{size:,} orders: placed in {filled:.0f} s, shown after {monotonic() - start:.0f} s",
                flush=True,
            )
            self._results |= await interleave(self._contestants(size), ROUNDS)
            await self._scene.check()
            await catch_up(self._scene, PATIENCE)
            await self._tell_sizes()
            self._results[at("rebuild", size)] = [await self._rebuild()]
        return self._results

    def _contestants(self, size: int) -> list[Contestant]:
        served = self._served
        return [
            Contestant(at("GetOrder", size), served.get),
            Contestant(at("PlaceOrder", size), served.place),
            Contestant(at("ListOrders", size), served.list),
            Contestant(at(LISTED, size), partial(served.list, Order.STATE_PLACED)),
        ]

    async def _tell_sizes(self) -> None:
        """Print what an order takes of each store."""
        orders = await self._scene.scalar("SELECT count(*) FROM streams WHERE type = 'ordering.order'")
        database = await self._scene.scalar("SELECT pg_database_size(current_database())")
        async with Redis.from_url(self._scene.stack.settings.redis_url) as redis:
            used = (await redis.info("memory"))["used_memory"]
        print(
            f"  an order takes {used / orders:,.0f} bytes in Redis, {database / orders:,.0f} in PostgreSQL",
            flush=True,
        )

    async def _rebuild(self) -> Sample:
        """Have the projector fill all views that follow orders anew, from every event that there is."""
        (projector,) = self._scene.stack.of(PROJECTOR)
        events = await self._scene.scalar("SELECT count(*) FROM events WHERE stream LIKE 'ordering.order.%'")
        async with Redis.from_url(self._scene.stack.settings.redis_url) as redis:
            await projector.start()
            for view in REBUILT:
                await redis.delete(view.ready, view.build)
            held, start = [memory(pid(projector))], monotonic()
            while await redis.exists(*(view.ready for view in REBUILT)) < len(REBUILT):
                if monotonic() - start > PATIENCE:
                    raise Void(f"{events:,} events are not projected after {PATIENCE:.0f} s")
                await asyncio.sleep(LOOK)
                held.append(memory(pid(projector)))
        seconds = monotonic() - start
        await projector.stop()
        half, most = held[len(held) // 2] / 1e6, max(held) / 1e6
        print(
            f"  {events:,} events projected anew in {seconds:.0f} s; "
            f"the projector held {half:.0f} MB halfway, {most:.0f} at the most",
            flush=True,
        )
        return Sample(events / seconds)


@asynccontextmanager
async def _scene() -> AsyncIterator[Scene]:
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        player = await Player.build(folder)
        async with temporary_stack(folder / "stack", durable=True) as stack:
            scene = Scene(stack, player, folder)
            await scene.rest()
            yield scene


async def main() -> None:
    """Measure, print the table and keep the result.

    Raises:
        Void, StartError, RuntimeError: there is no result.
    """
    async with _scene() as scene:
        results = await Growth(scene).measure()
    report.show(TABLE, results)
    slowest = max(percentile("99")(sample) or 0.0 for sample in results[at(LISTED, SIZES[-1])])
    print(f"99 % of {LISTED} of {SIZES[-1]:,}: {slowest:.0f} ms at the most, must be under 100 ms")
    print(report.keep("growth", TABLE, results).relative_to(Path.cwd()))


if __name__ == "__main__":
    logs.configure("warning", "console")
    try:
        uvloop.run(main())
    except (Void, StartError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
