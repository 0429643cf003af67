"""What the measures share: a stack with production-like settings, filled with orders, and callers' tokens."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from sys import executable
from time import monotonic, perf_counter
from typing import Any

import asyncpg
import grpc
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import Message
from redis.asyncio import Redis

from bench import requests
from bench.comparison import Sample, Void
from bench.load_generator import Player, write_requests
from bench.process_cost import Meter
from command_server.contexts import ordering
from command_server.kernel.batch import Request
from command_server.kernel.context import CommandType, aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.postgres.event_store import PostgresEventStore
from contracts.view_layout import View
from devstack.child import Child
from devstack.ports import free_port
from devstack.processes import Process
from devstack.stack import Stack
from operations.processes import PROJECTOR, RELAY
from operations.projections import wait_until_ready

ORDERS = 100_000
"""How many orders are there before anything is measured."""
IN_FLIGHT = 64
PATIENCE = 300.0
"""Seconds that relay and projector may take until all orders can be read."""
EPOCH = 1_700_000_000.0
SCOPES = ("ordering.read", "ordering.write", "inventory.write", "inventory.reserve")
PLACED = View.of(Order).index("all")


class Scene:
    """A stack that is up, filled with orders, and how calls are sent to it.

    Args:
        stack: the system.
        player: the load generator.
        folder: for what is sent.
    """

    def __init__(self, stack: Stack, player: Player, folder: Path) -> None:
        self.stack = stack
        self.player = player
        self.folder = folder
        self.token = stack.token(*SCOPES, subject="bench")
        self.recorded = 0
        """How many events the answers to commands so far stand for."""
        self.placed = 0
        """How many orders `o-0`, `o-1`, ... there are."""

    async def fill(self, count: int) -> None:
        """Place so many more of the orders `o-0`, `o-1`, ... by the kernel, which is quicker than gRPC."""
        store = PostgresEventStore(self.stack.settings.database_url)
        commits = GroupCommit(store, aggregate_types([ordering.CONTEXT]))
        writer = asyncio.create_task(commits.run())
        kind = place_order()
        orders = iter(requests.orders(count, "o-", self.placed))

        async def place() -> None:
            for message in orders:
                await commits.execute(as_request(kind, message))

        await asyncio.gather(*(place() for _ in range(256)))
        commits.close()
        await writer
        await store.close()
        self.recorded += count
        self.placed += count

    async def rest(self) -> None:
        """Stop relay and projector."""
        for process in (*self.stack.of(RELAY), *self.stack.of(PROJECTOR)):
            await process.stop()

    async def play(
        self,
        address: str,
        method: str,
        asked: Path,
        count: int = 0,
        *,
        seconds: float = 0.0,
        in_flight: int = IN_FLIGHT,
        processes: Mapping[str, int],
        events: int = 0,
    ) -> Sample:
        """Send so many requests and return how it went.

        Args:
            address: of the server.
            method: its path.
            asked: the requests.
            count: how many; 0 for as many as fit in `seconds`.
            seconds: how long to send.
            in_flight: how many at once.
            processes: whose CPU time is of interest: process ids by name.
            events: how many events an answer stands for.

        Raises:
            Void: one was not answered OK.
        """
        meter = Meter(processes)
        played = await self.player.play(
            address, method, asked, token=self.token, count=count, seconds=seconds, in_flight=in_flight
        )
        cpu = meter.microseconds(played.ok)
        if played.ok != (count or sum(played.statuses.values())):
            raise Void(
                f"{method} at {address} was answered {dict(played.statuses)}, of {count or 'all'} calls"
            )
        self.recorded += events * played.ok
        return Sample(played.rate, played.latency, cpu)

    async def check(self) -> None:
        """Make sure that the answers to commands and the recorded events are equally many.

        Raises:
            Void: they are not.
        """
        recorded = await self.scalar("SELECT count(*) FROM events")
        if recorded != self.recorded:
            raise Void(f"answers stand for {self.recorded} events, {recorded} were recorded")

    def processes(self) -> dict[str, int]:
        """Return the ids of all processes that run, by name."""
        servers = {server.name: server.child.process.pid for server in self.stack.servers.values()}
        return servers | {p.name: pid(p) for p in self.stack.processes if p.child.running}

    async def recount(self) -> None:
        """Take the events that there are for what the answers so far stand for."""
        self.recorded = await self.scalar("SELECT count(*) FROM events")

    async def scalar(self, statement: str) -> int:
        """Return a number from the database."""
        connection = await asyncpg.connect(self.stack.settings.database_url)
        try:
            return int(await connection.fetchval(statement))
        finally:
            await connection.close()

    async def execute(self, *statements: str) -> None:
        """Execute statements on the database, each by itself."""
        connection = await asyncpg.connect(self.stack.settings.database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def shown(self, count: int, patience: float = PATIENCE) -> None:
        """Wait until so many orders can be read.

        Raises:
            Void: it takes too long.
        """
        deadline = monotonic() + patience
        async with Redis.from_url(self.stack.settings.redis_url) as redis:
            while await redis.zcard(PLACED) < count:
                if monotonic() > deadline:
                    raise Void(f"the projector does not show {count} orders after {patience:.0f} s")
                await asyncio.sleep(0.1)

    async def shown_all(self, patience: float = PATIENCE) -> None:
        """Wait until every order that there is can be read, and all projections have caught up."""
        orders = await self.scalar("SELECT count(*) FROM streams WHERE type = 'ordering.order'")
        await self.shown(orders, patience)
        await wait_until_ready(self.stack.settings.redis_url, within=patience)

    def write(self, name: str, asked: Iterable[Message]) -> Path:
        """Write requests into a file of this name and return where."""
        path = self.folder / name
        write_requests(path, asked)
        return path

    async def ask(self, address: str, method: str, request: Message) -> bytes:
        """Return the bytes of a server's response."""
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(method)
            bearer = (("authorization", f"Bearer {self.token}"),)
            response: bytes = await call(request.SerializeToString(), metadata=bearer)
            return response

    @asynccontextmanager
    async def echo(self, responses: Mapping[str, bytes]) -> AsyncIterator[tuple[str, int]]:
        """Run a server that answers these methods with these bytes; yield its address and process id."""
        async with running_echo(self.folder, responses) as found:
            yield found


def pid(process: Process) -> int:
    """Return a process's id."""
    return process.child.process.pid


@asynccontextmanager
async def running_echo(folder: Path, responses: Mapping[str, bytes]) -> AsyncIterator[tuple[str, int]]:
    """Run a server that answers these methods with these bytes; yield its address and process id."""
    arguments = []
    for number, (method, response) in enumerate(responses.items()):
        file = folder / f"response-{number}-{id(responses)}"
        file.write_bytes(response)
        arguments.append(f"{method}={file}")
    address = f"127.0.0.1:{free_port()}"
    child = Child("echo", [executable, "-m", "bench.echo", address, *arguments], folder / "echo.log")
    await child.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
        yield address, child.process.pid
    finally:
        await child.stop()


def place_order() -> CommandType:
    """Return the command that the bench sends."""
    return command_types(ordering.CONTEXT)["diptych.ordering.v1.CommandService.PlaceOrder"]


def as_request(kind: CommandType, message: PlaceOrderRequest) -> Request:
    """Return a command as the kernel takes it from the gRPC edge."""
    return Request(
        kind=kind,
        command=kind.decode(message, "bench"),
        caller="bench",
        request_id=message.request_id,
        hash=sha256(message.SerializeToString()).digest(),
        expected_version=None,
        on_behalf_of=None,
        correlation_id=message.request_id,
        causation_id=None,
        traceparent=None,
        arrived_at=perf_counter(),
        deadline=None,
    )
