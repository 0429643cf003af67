"""`make bench-growth`: rates at 10,000 to 1,000,000 orders, a rebuild at each size, and one long stream."""

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

from bench import long_stream_growth, report
from bench.comparison import (
    Comparison,
    InvalidRun,
    Results,
    Sample,
    Subject,
    interleave,
    select_percentile,
)
from bench.environment import Environment, get_pid
from bench.load_generator import LoadGenerator
from bench.long_stream_growth import LongStreamGrowth
from bench.process_cost import read_memory
from bench.services import Services
from contracts.view_layout import View
from devstack.stack_kinds import temporary_stack
from operations.processes import PROJECTOR
from runtime.process import logs
from runtime.process.start_error import StartError

SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = 5
REBUILT_VIEWS = (View.of(Order), View.of(OrderHistory))
CATCH_UP_TIMEOUT = 3_600.0
"""Seconds within which relay and projector have to process all events."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks of a rebuild."""
MEASURES = ("GetOrder", "PlaceOrder", "ListOrders")
FILTERED_LIST = "ListOrders by customer and state"


def name_at_size(name: str, orders: int) -> str:
    """Return the name of a subject at a number of orders."""
    return f"{name} of {orders:,}"


TABLE = (
    *(
        Comparison(name_at_size(name, size), name_at_size(name, SIZES[0]), 0.90, 1.0)
        for name in MEASURES
        for size in SIZES[1:]
    ),
    Comparison(name_at_size("rebuild", SIZES[-1]), name_at_size("rebuild", SIZES[0]), 0.90, 1.0),
    *long_stream_growth.TABLE,
)


class Growth:
    """Grows an environment and measures it at each size."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._services = Services(environment)
        self._results: Results = {}

    async def measure(self) -> Results:
        for size in SIZES:
            start = monotonic()
            await self._environment.place_orders(size - self._environment.placed_orders)
            placing_seconds = monotonic() - start
            await self._environment.catch_up(CATCH_UP_TIMEOUT)
            print(
                f"{size:,} orders: placed in {placing_seconds:.0f} s, "
                f"in the read model after {monotonic() - start:.0f} s",
                flush=True,
            )
            self._results |= await interleave(self._subjects(size), ROUNDS)
            await self._environment.check_recorded_events()
            await self._environment.catch_up(CATCH_UP_TIMEOUT)
            await self._print_sizes()
            self._results[name_at_size("rebuild", size)] = [await self._measure_rebuild()]
        return self._results

    def _subjects(self, size: int) -> list[Subject]:
        services = self._services
        return [
            Subject(name_at_size("GetOrder", size), services.get_orders),
            Subject(name_at_size("PlaceOrder", size), services.place_orders),
            Subject(name_at_size("ListOrders", size), services.list_orders),
            Subject(name_at_size(FILTERED_LIST, size), partial(services.list_orders, Order.STATE_PLACED)),
        ]

    async def _print_sizes(self) -> None:
        """Print the bytes per order in each store."""
        orders = await self._environment.query_number(
            "SELECT count(*) FROM streams WHERE type = 'ordering.order'"
        )
        database = await self._environment.query_number("SELECT pg_database_size(current_database())")
        async with Redis.from_url(self._environment.stack.settings.redis_url) as redis:
            used = (await redis.info("memory"))["used_memory"]
        print(
            f"  an order takes {used / orders:,.0f} bytes in Redis, {database / orders:,.0f} in PostgreSQL",
            flush=True,
        )

    async def _measure_rebuild(self) -> Sample:
        """Time a rebuild of all views of orders from every event."""
        (projector,) = self._environment.stack.of(PROJECTOR)
        events = await self._environment.query_number(
            "SELECT count(*) FROM events WHERE stream LIKE 'ordering.order.%'"
        )
        async with Redis.from_url(self._environment.stack.settings.redis_url) as redis:
            await projector.start()
            for view in REBUILT_VIEWS:
                await redis.delete(view.ready, view.build)
            memory, start = [read_memory(get_pid(projector))], monotonic()
            while await redis.exists(*(view.ready for view in REBUILT_VIEWS)) < len(REBUILT_VIEWS):
                if monotonic() - start > CATCH_UP_TIMEOUT:
                    raise InvalidRun(f"{events:,} events are not projected after {CATCH_UP_TIMEOUT:.0f} s")
                await asyncio.sleep(CHECK_INTERVAL)
                memory.append(read_memory(get_pid(projector)))
        seconds = monotonic() - start
        await projector.stop()
        halfway, highest = memory[len(memory) // 2] / 1e6, max(memory) / 1e6
        print(
            f"  rebuilt from {events:,} events in {seconds:.0f} s; "
            f"memory of the projector: {halfway:.0f} MB halfway, {highest:.0f} MB at most",
            flush=True,
        )
        return Sample(events / seconds)


@asynccontextmanager
async def _open_environment() -> AsyncIterator[Environment]:
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        generator = await LoadGenerator.build(folder)
        async with temporary_stack(folder / "stack", durable=True) as stack:
            environment = Environment(stack, generator, folder)
            await environment.stop_workers()
            yield environment


async def main() -> None:
    """Measure, print the tables and save the results.

    Raises:
        InvalidRun, StartError, RuntimeError: there are no results.
    """
    async with _open_environment() as environment:
        results = await Growth(environment).measure()
        results |= await LongStreamGrowth(environment).measure()
    report.print_tables(TABLE, results)
    samples = results[name_at_size(FILTERED_LIST, SIZES[-1])]
    slowest = max(select_percentile("99")(sample) or 0.0 for sample in samples)
    print(f"99 % of {FILTERED_LIST} of {SIZES[-1]:,}: {slowest:.0f} ms at most, must be under 100 ms")
    print(report.save("growth", TABLE, results).relative_to(Path.cwd()))


if __name__ == "__main__":
    logs.configure("warning", "console")
    try:
        uvloop.run(main())
    except (InvalidRun, StartError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
