"""Orders that are placed and fulfilled on one running stack, and the time and CPU that this takes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import asyncpg
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from bench.comparison import InvalidRun, Sample
from bench.fulfilment_calls import (
    Caller,
    generate_orders,
    generate_supplies,
    list_account_commands,
    list_steps,
    send_all,
)
from bench.hosted_stack import RunningSystem
from bench.load_generator import LoadGenerator, write_requests
from bench.process_cost import CpuMeter
from bench.services import PLACE
from contracts.view_layout import View

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


class Fulfilments:
    """Orders on one running stack.

    Args:
        system: with a process manager, or without for direct commands and for the orchestrator by hand.
        generator: places the orders that the caller does not fulfil itself.
        folder: for requests files.
        orchestrator: the process id of the orchestrator by hand, by its name; empty without it.
    """

    def __init__(
        self, system: RunningSystem, generator: LoadGenerator, folder: Path, orchestrator: Mapping[str, int]
    ) -> None:
        self.system = system
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
        for commands in list_account_commands(orders):
            await send_all(self._caller, commands, IN_FLIGHT)
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
