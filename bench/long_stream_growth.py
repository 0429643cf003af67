"""One stream of a million events in a system with many orders: its commands, its view, and the others' lag.

The account is written as by a release whose code folded its events otherwise, so the first command folds all
of them. The events are then published and projected like any others.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic, perf_counter

import asyncpg
from diptych.banking.v1.command_service_pb2 import DepositRequest, OpenAccountRequest
from diptych.banking.v1.types_pb2 import Account
from google.type.money_pb2 import Money
from redis.asyncio import Redis

from bench import lag
from bench.client import make_sample
from bench.comparison import Comparison, InvalidRun, Results, Sample, select_percentile
from bench.environment import Environment
from bench.fulfilment_calls import Caller
from bench.long_accounts import write_account
from contracts.view_layout import View
from operations.processes import COMMAND_SERVER

EVENTS = 1_000_000
LONG, SHORT = "long-1", "short-1"
LATER_COMMANDS = 100
RATE, SECONDS = 100, 8
"""Orders a second beside the rebuild, and for how long."""
ACCOUNT = View.of(Account)
CATCH_UP_TIMEOUT = 3_600.0
"""Seconds within which its events have to be projected."""
CHECK_INTERVAL = 0.5
BEGIN_INTERVAL, BEGIN_TIMEOUT = 0.02, 60.0
"""Seconds between two checks whether a rebuild has begun, and until it must have."""
FIRST, LATER, LATER_SHORT = "first command on it", "a command on it", "a command on a short stream"
PROJECTED, REBUILT = "projection of it", "rebuild of its view"
LAG, LAG_BESIDE = "commit to visible at 100/s", "commit to visible beside its rebuild"
P50, P99 = select_percentile("50"), select_percentile("99")
TABLE = (
    Comparison(LATER, LATER_SHORT, 1.2, 1.0, P50, "p50", at_most=True),
    Comparison(LAG_BESIDE, LAG, None, None, P50, "p50", at_most=True),
    Comparison(LAG_BESIDE, LAG, 1.2, 1.0, P99, "p99", at_most=True),
)


class LongStreamGrowth:
    """The measurements, on an environment whose relay and projector are stopped."""

    def __init__(self, environment: Environment, events: int = EVENTS) -> None:
        self._environment, self._events = environment, events
        self._caller = Caller(environment.stack.of(COMMAND_SERVER)[0].address, environment.token)
        self._redis: Redis = Redis.from_url(environment.stack.settings.redis_url)
        self._total = events + 1 + LATER_COMMANDS
        """The account's last version, once all commands were sent."""

    async def measure(self) -> Results:
        """Write the account and measure everything once.

        Raises:
            InvalidRun: something was not answered, or not projected.
        """
        environment = self._environment
        await self._write_account()
        results = await self._measure_commands()
        results[PROJECTED] = [await self._measure_projection()]
        await environment.wait_for_read_model(CATCH_UP_TIMEOUT)
        results[LAG] = [await self._measure_lag()]
        async with self._rebuild() as rebuild:
            results[LAG_BESIDE] = [await self._measure_lag()]
            if rebuild.done():
                raise InvalidRun("the rebuild ended before the orders beside it")
            results[REBUILT] = [await rebuild]
        await environment.wait_for_read_model()
        await environment.stop_workers()
        await self._caller.close()
        await self._redis.aclose()
        await environment.check_recorded_events()
        return results

    async def _write_account(self) -> None:
        connection = await asyncpg.connect(self._environment.stack.settings.database_url)
        await write_account(connection, LONG, self._events, queued=True)
        await connection.execute("VACUUM ANALYZE")
        await connection.close()
        await self._environment.reset_expected_events()

    async def _measure_commands(self) -> Results:
        request = OpenAccountRequest(account_id=SHORT, owner_id="ada", currency_code="EUR")
        await self._caller.send(request)
        first = await self._deposit(LONG)
        await self._deposit(SHORT)
        later = [await self._deposit(LONG) for _ in range(LATER_COMMANDS)]
        short = [await self._deposit(SHORT) for _ in range(LATER_COMMANDS)]
        self._environment.expected_events += 3 + 2 * LATER_COMMANDS
        print(f"  {self._events:,} events in one stream: first command after {first:.1f} s", flush=True)
        return {
            name: [replace(make_sample(times, 0.0), cpu={})]
            for name, times in ((FIRST, [first]), (LATER, later), (LATER_SHORT, short))
        }

    async def _deposit(self, account_id: str) -> float:
        """Return the seconds until a command on this account is answered."""
        amount = Money(currency_code="EUR", units=1)
        start = perf_counter()
        await self._caller.send(DepositRequest(account_id=account_id, amount=amount, reference="one more"))
        return perf_counter() - start

    async def _measure_projection(self) -> Sample:
        """Start relay and projector; return the rate until the account's view includes all its events."""
        processes = self._environment.stack.processes
        for process in processes:
            if not process.child.running:
                await process.start()
        return await self._measure_view()

    async def _measure_view(self) -> Sample:
        """Wait until the account's view includes all its events; return their rate."""
        start, total = monotonic(), self._total
        while (version := await self._read_version()) < total:
            if monotonic() - start > CATCH_UP_TIMEOUT:
                raise InvalidRun(f"the view is at version {version} of {total}")
            await asyncio.sleep(CHECK_INTERVAL)
        seconds = monotonic() - start
        print(f"  its view was built in {seconds:.0f} s, {total / seconds:,.0f} events/s", flush=True)
        return Sample(total / seconds)

    @asynccontextmanager
    async def _rebuild(self) -> AsyncIterator["asyncio.Task[Sample]"]:
        """Begin a rebuild of the account's projection; yield the task that waits for its end."""
        await self._redis.delete(ACCOUNT.ready, ACCOUNT.build)
        start = monotonic()
        while await self._read_version() >= self._total:  # until the previous build is cleared
            if monotonic() - start > BEGIN_TIMEOUT:
                raise InvalidRun(f"the rebuild has not begun after {BEGIN_TIMEOUT:.0f} s")
            await asyncio.sleep(BEGIN_INTERVAL)
        task = asyncio.create_task(self._measure_view())
        try:
            yield task
        finally:
            task.cancel()

    async def _read_version(self) -> int:
        """Return the version of the account's view; 0 if there is none."""
        return int(await self._redis.hget(ACCOUNT.key(LONG), "version") or 0)

    async def _measure_lag(self) -> Sample:
        environment, count = self._environment, RATE * SECONDS
        sample = await lag.measure_system(
            environment.describe_system(), environment.generator, environment.folder, RATE, count
        )
        environment.expected_events += count
        return sample
