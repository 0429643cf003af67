"""One run: 10,000 orders are placed and projected, then every round asks echo and servers in turn.

Rounds interleave because a machine's speed drifts: a ratio is taken within a round, and of those the median.
Relay and projector rest meanwhile unless asked otherwise: here they would compete with the server that is
measured for the same few cores, where an installation gives them cores of their own.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import grpc
from diptych.ordering.v1 import command_service_pb2, query_service_pb2
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import Message
from redis.asyncio import Redis

from bench import requests
from bench.load import Ghz, Result, write_descriptors, write_requests
from bench.report import Compared
from operations.child import Child
from operations.ports import free_port
from operations.processes import PROJECTOR, RELAY
from operations.stack import Stack
from runtime.views import View

GET = "/diptych.ordering.v1.QueryService/GetOrder"
PLACE = "/diptych.ordering.v1.CommandService/PlaceOrder"
GOALS = {GET: 0.7, PLACE: 0.45}
ORDERS = 10_000
ROUNDS = 5
CALLS = 3_000
"""Calls of one method in one round."""
PATIENCE = 120.0
"""Seconds that the projector may take to show all orders."""
ECHO_PATIENCE = 30.0
"""Seconds that the echo may take to listen."""


class Void(Exception):
    """The run proves nothing: something was refused, or is not recorded."""


class Bench:
    """A run on a stack that is up.

    Args:
        stack: the system.
        ghz: where the load generator is.
        folder: for requests and responses.
        feed: whether relay and projector work during the rounds.
    """

    def __init__(self, stack: Stack, ghz: str, folder: Path, *, feed: bool) -> None:
        self._feed = feed
        self._reads = 0
        self._stack = stack
        self._settings = stack.settings
        self._folder = folder
        self._token = stack.token("ordering.read", "ordering.write")
        descriptors = folder / "descriptors"
        write_descriptors(descriptors, [command_service_pb2.DESCRIPTOR, query_service_pb2.DESCRIPTOR])
        self._ghz = Ghz(ghz, descriptors, self._token)
        self._addresses = {GET: self._settings.query_address, PLACE: self._settings.command_address}

    async def run(self) -> list[Compared]:
        """Measure both methods against their echo.

        Raises:
            Void: see there.
        """
        await self._fill()
        if not self._feed:
            for process in (*self._stack.of(RELAY), *self._stack.of(PROJECTOR)):
                await process.stop()
        found: dict[str, list[tuple[Result, Result]]] = {GET: [], PLACE: []}
        async with self._echo() as echo:
            await self._round(echo)  # warms everything up
            placed = await self._events()
            for number in range(ROUNDS):
                print(f"round {number + 1} of {ROUNDS}", flush=True)
                for method, results in (await self._round(echo)).items():
                    found[method].append(results)
        self._check(await self._events() - placed, found[PLACE])
        return [
            Compared(method.rpartition("/")[2], GOALS[method], *zip(*results, strict=True))
            for method, results in found.items()
        ]

    async def _round(self, echo: str) -> dict[str, tuple[Result, Result]]:
        """Return each method's result and its echo's."""
        reads = self._write("reads", requests.reads("o-", ORDERS, self._reads, CALLS))
        self._reads += CALLS
        orders = self._write("orders", requests.orders(CALLS))
        results = {}
        for method, asked in ((GET, reads), (PLACE, orders)):
            ceiling = await self._ghz.run(echo, method, asked, CALLS)
            ours = await self._ghz.run(self._addresses[method], method, asked, CALLS)
            for result in (ceiling, ours):
                if result.refused or result.ok != CALLS:
                    raise Void(f"{method} was answered {result.refused} beside {result.ok} times OK")
            results[method] = (ours, ceiling)
        return results

    async def _fill(self) -> None:
        """Place the orders that are read later, and wait until the last can be read."""
        print(f"placing {ORDERS:,} orders", flush=True)
        orders = self._write("fill", requests.orders(ORDERS, "o-"))
        result = await self._ghz.run(self._addresses[PLACE], PLACE, orders, ORDERS)
        if result.ok != ORDERS:
            raise Void(f"only {result.ok} of {ORDERS} orders were placed: {result.refused}")
        placed = View.of(Order).index("state", "STATE_PLACED")
        deadline = monotonic() + PATIENCE
        async with Redis.from_url(self._settings.redis_url) as redis:
            while await redis.zcard(placed) < ORDERS:
                if monotonic() > deadline:
                    raise Void(f"the projector does not show {ORDERS} orders after {PATIENCE:.0f} s")
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def _echo(self) -> AsyncIterator[str]:
        """Run an echo that answers what the servers answer; yield its address."""
        asked = {
            GET: query_service_pb2.GetOrderRequest(order_id="o-1"),
            PLACE: next(requests.orders(1)),
        }
        arguments = []
        for method, request in asked.items():
            file = self._folder / f"response-{method.rpartition('/')[2]}"
            file.write_bytes(await self._ask(method, request))
            arguments.append(f"{method}={file}")
        address = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "bench.echo", address, *arguments]
        child = Child("echo", command, self._folder / "echo.log")
        await child.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), ECHO_PATIENCE)
            yield address
        finally:
            await child.stop()

    async def _ask(self, method: str, request: Message) -> bytes:
        """Return the bytes of a server's response."""
        async with grpc.aio.insecure_channel(self._addresses[method]) as channel:
            call: Any = channel.unary_unary(method)
            bearer = (("authorization", f"Bearer {self._token}"),)
            response: bytes = await call(request.SerializeToString(), metadata=bearer)
            return response

    async def _events(self) -> int:
        connection = await asyncpg.connect(self._settings.database_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM events"))
        finally:
            await connection.close()

    def _write(self, name: str, asked: Iterable[Message]) -> Path:
        path = self._folder / name
        write_requests(path, asked)
        return path

    @staticmethod
    def _check(recorded: int, rounds: list[tuple[Result, Result]]) -> None:
        """Make sure that every OK answer to a command stands for an event.

        Raises:
            Void: it does not.
        """
        answered = sum(ours.ok for ours, _ in rounds)
        if recorded != answered:
            raise Void(f"{answered} commands were answered OK, {recorded} events were recorded")
