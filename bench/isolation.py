"""The first benefit of separate sides: commands keep their latency while queries take all they can get.

Command server and PostgreSQL have one half of the cores, all other processes the other half; so it is with
the generators of commands and of queries. Commands arrive at a fixed rate, once alone, with relay and
projector stopped, and once beside queries at full rate and a projector that follows.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from bench import requests
from bench.comparison import InvalidRun, Sample, Subject
from bench.cores import describe_cores, pin, split_cores
from bench.environment import IN_FLIGHT, Environment
from bench.load_generator import LoadResult, keep_sending
from bench.process_cost import CpuMeter
from bench.services import GET, PLACE
from operations.processes import COMMAND_SERVER, QUERY_SERVER

ALONE, BESIDE = "commands alone", "commands beside queries and projector"
RATE = 200
"""Commands a second."""
MAX_SECONDS = 60.0
"""After which queries end even if commands do not."""
COMMAND_SIDE = {"command_server", "PostgreSQL"}


class Isolation:
    """Both runs on one environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._command_cores, self._query_cores = split_cores()
        stack = environment.stack
        self._command, self._query = stack.of(COMMAND_SERVER)[0], stack.of(QUERY_SERVER)[0]

    async def measure_alone(self) -> Sample:
        with self._pin_all():
            return await self._send_commands()

    async def measure_beside(self) -> Sample:
        environment = self._environment
        await environment.start_workers()
        try:
            with self._pin_all():
                sample, queries = await self._send_both()
            print(f"  beside {queries.rate:,.0f} queries/s", flush=True)
            await environment.wait_for_read_model()
        finally:
            await environment.stop_workers()
        return sample

    async def _send_both(self) -> tuple[Sample, LoadResult]:
        async with keep_sending(self._send_queries, "the queries ended before the commands") as queries:
            sample = await self._send_commands()
        result = queries.result()
        if result.ok != sum(result.statuses.values()):
            raise InvalidRun(f"queries beside commands returned {dict(result.statuses)}")
        return sample, result

    @contextmanager
    def _pin_all(self) -> Iterator[None]:
        """Give both sides their cores, within the context."""
        processes = self._environment.describe_system().processes
        commands = [pid for name, pid in processes.items() if name in COMMAND_SIDE]
        others = [pid for name, pid in processes.items() if name not in COMMAND_SIDE]
        with pin(commands, self._command_cores), pin(others, self._query_cores):
            yield

    async def _send_commands(self) -> Sample:
        environment = self._environment
        count = int(RATE * environment.plan.seconds)
        path = environment.write_requests("requests-isolation", requests.generate_orders(count))
        meter = CpuMeter(environment.describe_system().processes)
        result = await environment.generator.run(
            *(self._command.address, PLACE, path),
            token=environment.token,
            count=count,
            rate=RATE,
            in_flight=count,
            cores=self._command_cores,
        )
        if result.ok != count:
            raise InvalidRun(f"of {count} orders {result.ok} were placed: {dict(result.statuses)}")
        environment.expected_events += count
        return Sample(result.rate, result.latency, meter.measure(count))

    async def _send_queries(self, stop: asyncio.Event) -> LoadResult:
        environment = self._environment
        reads = requests.generate_reads("o-", environment.placed_orders, 0, requests.READS)
        return await environment.generator.run(
            *(self._query.address, GET, environment.write_requests("requests-beside", reads)),
            token=environment.token,
            seconds=MAX_SECONDS,
            in_flight=IN_FLIGHT,
            cores=self._query_cores,
            stop=stop,
        )


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield commands alone, and commands beside queries."""
    isolation = Isolation(environment)
    commands, others = map(describe_cores, split_cores())
    print(f"  command server and PostgreSQL have {commands}, all others {others}", flush=True)
    yield [Subject(ALONE, isolation.measure_alone), Subject(BESIDE, isolation.measure_beside)]
