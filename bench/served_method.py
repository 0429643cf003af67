"""A method of one server, called at any rate, and compared with the events that its calls record."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import requests
from bench.comparison import InvalidRun
from bench.environment import IN_FLIGHT, Environment
from bench.load_generator import LoadResult
from bench.services import GET, PLACE, name_on_h2corn
from devstack.processes import Process
from operations.processes import COMMAND_SERVER, QUERY_SERVER

MAX_IN_FLIGHT = 50_000
"""Concurrent calls of an open loop."""
WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class ServedMethod:
    """A method on one server."""

    environment: Environment
    name: str
    """In the tables."""
    path: str
    process: Process
    events: int
    """Events that each call records."""
    requests_file: Path

    async def send(
        self,
        seconds: float,
        rate: float = 0.0,
        deadline: float = 0.0,
        token: str = "",
        stop: asyncio.Event | None = None,
    ) -> LoadResult:
        """Send calls in an open loop at a rate, or in a closed loop without one; statuses are not checked."""
        return await self.environment.generator.run(
            self.process.address,
            self.path,
            self.requests_file,
            token=token or self.environment.token,
            seconds=seconds,
            in_flight=MAX_IN_FLIGHT if rate else IN_FLIGHT,
            rate=rate,
            deadline=deadline,
            fresh_ids=self.events > 0,
            stop=stop,
        )

    async def measure_peak(self, seconds: float) -> LoadResult:
        """Return the result of a closed loop.

        Raises:
            InvalidRun: a call failed, or the number of recorded events does not fit.
        """
        async with self.check_events() as results:
            results.append(result := await self.send(seconds))
        if result.ok != sum(result.statuses.values()):
            raise InvalidRun(f"{self.name} returned {dict(result.statuses)}")
        return result

    @asynccontextmanager
    async def check_events(self) -> AsyncIterator[list[LoadResult]]:
        """Compare the results that are added to the list with the events that are recorded meanwhile.

        Of failed commands any number may have been recorded.

        Raises:
            InvalidRun: the number of recorded events does not fit the responses.
        """
        results: list[LoadResult] = []
        before = await self.environment.query_number("SELECT count(*) FROM events")
        yield results
        await self.environment.reset_expected_events()
        new = self.environment.expected_events - before
        ok = sum(result.ok for result in results)
        calls = sum(sum(result.statuses.values()) for result in results)
        if not self.events * ok <= new <= self.events * calls:
            raise InvalidRun(f"{ok} calls of {self.name} succeeded, {new} events were recorded")


@asynccontextmanager
async def open_methods(environment: Environment) -> AsyncIterator[Sequence[ServedMethod]]:
    """Yield GetOrder and PlaceOrder, each on grpc.aio and on h2corn, after a warm-up."""
    reads = requests.generate_reads("o-", environment.placed_orders, 0, requests.READS)
    orders = requests.generate_orders(requests.COMMANDS)
    methods: list[ServedMethod] = []
    async with AsyncExitStack() as stack:
        for name, path, kind, events, messages in (
            ("GetOrder", GET, QUERY_SERVER, 0, reads),
            ("PlaceOrder", PLACE, COMMAND_SERVER, 1, orders),
        ):
            file = environment.write_requests(f"requests-served-{name}", messages)
            fast = await stack.enter_async_context(environment.run_on_h2corn(kind))
            methods += [
                ServedMethod(environment, name, path, environment.stack.of(kind)[0], events, file),
                ServedMethod(environment, name_on_h2corn(name), path, fast, events, file),
            ]
        for method in methods:
            await method.measure_peak(WARM_UP_SECONDS)
        yield methods


METHODS = [each for name in ("GetOrder", "PlaceOrder") for each in (name, name_on_h2corn(name))]
"""The names of these methods."""
