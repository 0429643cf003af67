"""Orders that the process manager fulfils: what that costs beyond the commands, how many, and how soon.

An order counts as fulfilled once it is confirmed: placed, assessed, its stock reserved, its money held, both
made firm, and confirmed. Three runs of a round send the same seven commands for each order, each on a stack
of its own:

- *managed*: the caller places orders, and the process manager sends the other commands;
- *direct*: the caller sends all of them, and no process manager runs;
- *by hand*: `bench.orchestrator` takes the process manager's place.

The CPU of orchestration is that of all processes, while orders are placed and until all are confirmed in the
read model, less that of the direct run at the same load. The callers are not counted.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import asyncpg
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from bench.comparison import InvalidRun, Sample
from bench.fulfilment_calls import Caller, generate_orders, generate_supplies, list_steps, send_all
from bench.hosted_stack import ROOT, HostedStack, RunningSystem, run_stack
from bench.load_generator import LoadGenerator, write_requests
from bench.process_cost import CpuMeter
from bench.services import PLACE
from contracts.view_layout import View
from devstack.child import Child

QUEUED, PACED, LONE = "order of a queue", "order at 10/s", "a lone PlaceOrder"
MANAGED, DIRECT, BY_HAND = "by the process manager", "by direct commands", "by hand"
WARM_UP_ORDERS, LONE_ORDERS = 60, 200
IN_FLIGHT = 64
STALLED_AFTER = 60.0
"""Seconds without another confirmed order after which a run is invalid."""
CHECK_INTERVAL = 0.05
"""Seconds between two counts of the confirmed orders in the read model."""
CONFIRMED = View.of(Order).index("state", Order.State.Name(Order.STATE_CONFIRMED))
SELECT_TIMES = """
SELECT stream, type ~ 'OrderConfirmed$', extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8
FROM events WHERE stream LIKE $1 AND type ~ 'Order(Placed|Confirmed)$'
"""


@dataclass(frozen=True)
class Load:
    """The load of a round."""

    queued: int = 600
    """Orders that are placed at once."""
    rate: float = 10.0
    seconds: float = 10.0
    """Orders a second that are placed for this time."""


class Fulfilments:
    """Orders on one running stack.

    Args:
        stack: with a process manager, or without for direct commands and for the orchestrator by hand.
        generator: places the orders that the caller does not fulfil itself.
        folder: for requests files.
        orchestrator: the process id of the orchestrator by hand, by its name; empty without it.
    """

    def __init__(
        self, stack: HostedStack, generator: LoadGenerator, folder: Path, orchestrator: Mapping[str, int]
    ) -> None:
        self.system, self._stack = stack.system, stack
        self._generator, self._folder = generator, folder
        self._processes = {**self.system.processes, **orchestrator}
        self._caller = Caller(self.system.command_address, self.system.token)
        self._placed = 0

    async def run(self, count: int, rate: float = 0.0, *, direct: bool = False) -> Sample:
        """Place orders and wait until the read model shows all of them as confirmed.

        Args:
            count: their number.
            rate: orders per second; 0 for all at once, as fast as the server takes them.
            direct: whether the caller itself sends the commands of the fulfilment.

        Raises:
            InvalidRun: a call failed, or orders are not confirmed.
        """
        prefix = f"run-{self._placed}"
        orders = list(generate_orders(prefix, count, 0))
        meter = CpuMeter(self._processes)
        if direct:
            await self._fulfil(orders, rate)
        else:
            await self._place(orders, rate)
        self._placed += count
        await self._wait_until_confirmed()
        cpu = meter.measure(count)
        return await self._read_sample(prefix, count, cpu)

    async def prepare(self, *, direct: bool) -> None:
        """Create stock and money, and let some orders warm everything up."""
        await send_all(self._caller, generate_supplies(), 1)
        await self.run(WARM_UP_ORDERS, direct=direct)

    async def measure_lone_calls(self) -> Sample:
        """Place orders one after the other, which nobody fulfils."""
        path = self._folder / "lone"
        write_requests(path, generate_orders("lone", LONE_ORDERS, 0))
        result = await self._generator.run(
            *(self.system.command_address, PLACE, path),
            token=self.system.token,
            count=LONE_ORDERS,
            in_flight=1,
        )
        if result.ok != LONE_ORDERS:
            raise InvalidRun(f"of {LONE_ORDERS} lone orders {result.ok} were placed")
        return Sample(result.rate, result.latency)

    async def close(self) -> None:
        await self._caller.close()

    async def _place(self, orders: list[PlaceOrderRequest], rate: float) -> None:
        path = self._folder / "orders"
        write_requests(path, orders)
        result = await self._generator.run(
            *(self.system.command_address, PLACE, path),
            token=self.system.token,
            count=len(orders),
            rate=rate,
            in_flight=IN_FLIGHT,
        )
        if result.ok != len(orders):
            raise InvalidRun(f"of {len(orders)} orders {result.ok} were placed: {dict(result.statuses)}")

    async def _fulfil(self, orders: list[PlaceOrderRequest], rate: float) -> None:
        """Place each order and send its commands; without a rate, IN_FLIGHT orders at a time."""
        start, remaining = monotonic(), iter(enumerate(orders))

        async def work() -> None:
            for number, order in remaining:
                if rate:
                    await asyncio.sleep(max(0.0, start + number / rate - monotonic()))
                await self._caller.send(order)
                await self._caller.send_steps(list_steps(order))

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    async def _wait_until_confirmed(self) -> None:
        most, changed_at = -1, monotonic()
        async with Redis.from_url(self.system.redis_url) as redis:
            while (confirmed := await redis.zcard(CONFIRMED)) < self._placed:
                if confirmed > most:
                    most, changed_at = confirmed, monotonic()
                if monotonic() - changed_at > STALLED_AFTER:
                    raise InvalidRun(
                        f"{confirmed} of {self._placed} orders are confirmed, and no more follow"
                    )
                await asyncio.sleep(CHECK_INTERVAL)

    async def _read_sample(self, prefix: str, count: int, cpu: Mapping[str, float]) -> Sample:
        connection = await asyncpg.connect(self.system.database_url)
        rows = await connection.fetch(SELECT_TIMES, f"ordering.order.{prefix}-%")
        await connection.close()
        placed = {stream: at for stream, confirmed, at in rows if not confirmed}
        confirmed = {stream: at for stream, confirmed, at in rows if confirmed}
        if len(rows) != 2 * count or len(placed) != count or placed.keys() != confirmed.keys():
            raise InvalidRun(f"{count} orders: {len(placed)} were placed, {len(confirmed)} confirmed")
        return make_sample(placed, confirmed, cpu)


def make_sample(
    placed: Mapping[str, float], confirmed: Mapping[str, float], cpu: Mapping[str, float]
) -> Sample:
    """Return the sample of orders that were placed and confirmed at these times in seconds.

    Its rate counts from the first placed order to the last confirmed one, latencies from placed to confirmed.
    """
    lags = sorted(1000 * (at - placed[order]) for order, at in confirmed.items())
    seconds = max(confirmed.values()) - min(placed.values())
    latency = {name: lags[int(len(lags) * share)] for name, share in (("10", 0.1), ("50", 0.5), ("99", 0.99))}
    return Sample(len(lags) / seconds, latency, cpu, lags)


def subtract_cpu(sample: Sample, direct: Sample) -> Sample:
    """Return a sample with the CPU time that it took beyond the direct run, by process."""
    return replace(sample, cpu={name: cost - direct.cpu.get(name, 0.0) for name, cost in sample.cpu.items()})


@asynccontextmanager
async def open_fulfilments(
    generator: LoadGenerator, variables: Mapping[str, str], root: Path = ROOT, orchestrator: str = DIRECT
) -> AsyncIterator[Fulfilments]:
    """Yield orders on a stack of their own; at the end its verifier must be clean.

    Args:
        generator: places the orders.
        variables: of all processes.
        root: the checkout whose code is measured.
        orchestrator: MANAGED, DIRECT or BY_HAND.

    Raises:
        InvalidRun: the stack does not start, the warm-up fails, or the verifier has findings.
    """
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory(prefix="diptych-bench-")))
        managers = 1 if orchestrator == MANAGED else 0
        stack = await exits.enter_async_context(
            run_stack(root, process_managers=managers, variables=variables)
        )
        pids = {}
        if orchestrator == BY_HAND:
            child = _create_orchestrator(stack.system, folder)
            await child.start()
            exits.push_async_callback(child.stop)
            pids = {"orchestrator": child.process.pid}
        run = Fulfilments(stack, generator, folder, pids)
        exits.push_async_callback(run.close)
        await run.prepare(direct=orchestrator == DIRECT)
        yield run
        await stack.check_consistency()


def _create_orchestrator(system: RunningSystem, folder: Path) -> Child:
    addresses = (system.command_address, system.database_url, system.nats_url)
    command = [sys.executable, "-m", "bench.orchestrator", *addresses]
    environment = {**os.environ, "BENCH_TOKEN": system.token}
    return Child("orchestrator", command, folder / "orchestrator.log", environment=environment)


async def measure_round(
    generator: LoadGenerator,
    load: Load,
    variables: Mapping[str, str],
    root: Path = ROOT,
    orchestrators: Sequence[str] = (MANAGED, BY_HAND),
) -> dict[str, Sample]:
    """Run a round: direct commands, then each orchestrator; return the samples by the subjects' names.

    Raises:
        InvalidRun: a run proves nothing.
    """
    paced = int(load.rate * load.seconds)
    async with open_fulfilments(generator, variables, root) as run:
        samples = {LONE: await run.measure_lone_calls()}
        queued = samples[f"{QUEUED}, {DIRECT}"] = await run.run(load.queued, direct=True)
        spread = samples[f"{PACED}, {DIRECT}"] = await run.run(paced, load.rate, direct=True)
    for orchestrator in orchestrators:
        async with open_fulfilments(generator, variables, root, orchestrator) as run:
            samples[f"{QUEUED}, {orchestrator}"] = subtract_cpu(await run.run(load.queued), queued)
            samples[f"{PACED}, {orchestrator}"] = subtract_cpu(await run.run(paced, load.rate), spread)
    return samples
