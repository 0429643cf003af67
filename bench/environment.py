"""The environment of most measurements: a stack with production-like settings and many orders."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import grpc
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import Message
from redis.asyncio import Redis

from bench import requests, stack_host
from bench.comparison import InvalidRun, Sample
from bench.hosted_stack import RunningSystem
from bench.kernel_requests import build_request, place_order_type
from bench.load_generator import LoadGenerator, write_requests
from bench.plan import COMPLETE, Plan
from bench.process_cost import CpuMeter
from command_server.contexts import ordering
from command_server.kernel.batch import Request
from command_server.kernel.context import aggregate_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Overloaded
from command_server.postgres.event_store import PostgresEventStore
from contracts.view_layout import View
from devstack.processes import Process
from devstack.stack import Stack
from operations.processes import PROJECTOR, RELAY, ProcessKind
from operations.projections import wait_until_ready

IN_FLIGHT = 64
H2CORN = {"DIPTYCH_GRPC_SERVER": "h2corn"}
"""The variables of a process whose calls h2corn takes."""
CATCH_UP_TIMEOUT = 300.0
"""Seconds within which relay and projector have to process the backlog."""
PLACED = View.of(Order).index("all")


class Environment:
    """A running stack with orders, and the ways to send requests to it.

    Args:
        stack: the system.
        generator: sends the load.
        folder: for requests files.
        plan: how much is measured.
    """

    def __init__(self, stack: Stack, generator: LoadGenerator, folder: Path, plan: Plan = COMPLETE) -> None:
        self.stack = stack
        self.generator = generator
        self.folder = folder
        self.plan = plan
        self.token = stack.token(*stack_host.SCOPES, subject="bench")
        self.expected_events = 0
        """Events that the successful commands so far must have recorded."""
        self.authorities: dict[str, Path] = {}
        """The authority of the servers that are called by TLS, by their addresses."""
        self.placed_orders = 0
        """Orders `o-0`, `o-1`, ... that exist."""

    async def place_orders(self, count: int) -> None:
        """Place the next `count` orders `o-<number>`; the kernel does so without gRPC, which is faster."""
        store = PostgresEventStore(self.stack.settings.database_url)
        commits = GroupCommit(store, aggregate_types([ordering.CONTEXT]))
        writer = asyncio.create_task(commits.run())
        kind = place_order_type()
        orders = iter(requests.generate_orders(count, "o-", self.placed_orders))

        async def place() -> None:
            for message in orders:
                await _execute(commits, build_request(kind, message))

        await asyncio.gather(*(place() for _ in range(256)))
        commits.close()
        await writer
        await store.close()
        self.expected_events += count
        self.placed_orders += count

    async def grow(self, size: int) -> None:
        """Place orders until there are this many, and let the read model catch up."""
        start = monotonic()
        await self.place_orders(size - self.placed_orders)
        placing_seconds = monotonic() - start
        await self.catch_up()
        print(
            f"{size:,} orders: placed in {placing_seconds:.0f} s,"
            f" in the read model after {monotonic() - start:.0f} s",
            flush=True,
        )

    async def start_workers(self) -> None:
        """Start relay and projector, and wait until the read model has caught up."""
        for process in (*self.stack.of(RELAY), *self.stack.of(PROJECTOR)):
            await process.start()
        await self.wait_for_read_model()

    @asynccontextmanager
    async def run_on_h2corn(self, kind: ProcessKind) -> AsyncIterator[Process]:
        """Run a further process of this kind, whose calls h2corn takes."""
        process = self.stack.add(kind, (), H2CORN)
        await process.start()
        try:
            yield process
        finally:
            await process.stop()

    async def catch_up(self, within: float = CATCH_UP_TIMEOUT) -> None:
        """Let relay and projector process the backlog, without measuring it."""
        for process in (*self.stack.of(RELAY), *self.stack.of(PROJECTOR)):
            await process.start()
        await self.wait_for_read_model(within)
        await self.stop_workers()

    async def stop_workers(self) -> None:
        """Stop relay and projector, which would compete with the measured servers for CPU time."""
        for process in (*self.stack.of(RELAY), *self.stack.of(PROJECTOR)):
            await process.stop()

    async def measure(
        self,
        address: str,
        method: str,
        requests_file: Path,
        count: int = 0,
        *,
        seconds: float = 0.0,
        in_flight: int = IN_FLIGHT,
        rate: float = 0.0,
        processes: Mapping[str, int],
        events: int = 0,
    ) -> Sample:
        """Send requests and return the sample of the run.

        Args:
            address: of the server.
            method: its path.
            requests_file: the serialised requests; those of commands get new request ids.
            count: the number of calls; 0 for as many as fit into `seconds`.
            seconds: the duration; 0 for no limit.
            in_flight: the number of concurrent calls, at most with a rate.
            rate: calls per second, whether or not they are answered; 0 for a closed loop.
            processes: ids, by name, of the processes whose CPU time is measured.
            events: the number of events that each call records.

        Raises:
            InvalidRun: a call failed.
        """
        meter = CpuMeter(processes)
        result = await self.generator.run(
            address,
            method,
            requests_file,
            token=self.token,
            count=count,
            seconds=seconds,
            in_flight=in_flight,
            rate=rate,
            fresh_ids=events > 0,
            authority=self.authorities.get(address),
        )
        cpu = meter.measure(result.ok)
        if result.ok != (count or sum(result.statuses.values())):
            raise InvalidRun(
                f"{method} at {address} returned {dict(result.statuses)}, of {count or 'all'} calls"
            )
        self.expected_events += events * result.ok
        return Sample(result.rate, result.latency, cpu)

    async def check_recorded_events(self) -> None:
        """Compare the recorded events with those that the successful commands must have recorded.

        Raises:
            InvalidRun: the numbers differ.
        """
        recorded = await self.query_number("SELECT count(*) FROM events")
        if recorded != self.expected_events:
            raise InvalidRun(f"expected {self.expected_events} events, {recorded} were recorded")

    def describe_system(self) -> RunningSystem:
        """Return the stack with the ids of all servers and processes that run now."""
        return RunningSystem(**stack_host.describe(self.stack, self.token))

    def select_servers(self, *settings: str) -> dict[str, int]:
        """Return the process ids, by name, of the servers of these settings, for instance `nats_url`."""
        servers = [self.stack.servers[setting] for setting in settings]
        return {server.name: server.child.process.pid for server in servers}

    async def recover(self) -> None:
        """Make the next measurements possible after one that failed."""
        await self.stop_workers()
        await self.catch_up()
        await self.reset_expected_events()

    async def reset_expected_events(self) -> None:
        """Expect the events that are recorded now."""
        self.expected_events = await self.query_number("SELECT count(*) FROM events")

    async def query_number(self, statement: str) -> int:
        """Return the number that a SQL statement selects."""
        connection = await asyncpg.connect(self.stack.settings.database_url)
        try:
            return int(await connection.fetchval(statement))
        finally:
            await connection.close()

    async def execute(self, *statements: str) -> None:
        """Execute SQL statements, each in a transaction of its own."""
        connection = await asyncpg.connect(self.stack.settings.database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def wait_for_orders(self, count: int, within: float = CATCH_UP_TIMEOUT) -> None:
        """Wait until the read model lists this many orders.

        Raises:
            InvalidRun: it does not within these seconds.
        """
        await wait_for_orders(self.stack.settings.redis_url, count, within)

    async def wait_for_read_model(self, within: float = CATCH_UP_TIMEOUT) -> None:
        """Wait until the read model lists every order, and all projections have caught up.

        Raises:
            InvalidRun, StartError: it does not, or they have not, within these seconds.
        """
        orders = await self.query_number("SELECT count(*) FROM streams WHERE type = 'ordering.order'")
        await self.wait_for_orders(orders, within)
        await wait_until_ready(self.stack.settings, within=within)

    def write_requests(self, name: str, messages: Iterable[Message]) -> Path:
        """Write a requests file; return its path."""
        path = self.folder / name
        write_requests(path, messages)
        return path

    async def call(self, address: str, method: str, request: Message) -> bytes:
        """Return the serialised response to one call."""
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(method)
            bearer = (("authorization", f"Bearer {self.token}"),)
            response: bytes = await call(request.SerializeToString(), metadata=bearer)
            return response


async def wait_for_orders(redis_url: str, count: int, within: float = CATCH_UP_TIMEOUT) -> None:
    """Wait until a read model lists this many orders.

    Raises:
        InvalidRun: it does not within these seconds.
    """
    deadline = monotonic() + within
    async with Redis.from_url(redis_url) as redis:
        while await redis.zcard(PLACED) < count:
            if monotonic() > deadline:
                raise InvalidRun(f"the read model does not list {count} orders after {within:.0f} s")
            await asyncio.sleep(0.1)


async def _execute(commits: GroupCommit, request: Request) -> None:
    """Execute a command, again if there were too many."""
    while True:
        try:
            await commits.execute(request)
        except Overloaded as error:
            await asyncio.sleep(error.retry_after)
        else:
            return


def get_pid(process: Process) -> int:
    return process.child.process.pid
