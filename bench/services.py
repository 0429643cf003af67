"""What callers meet: queries and commands through gRPC, beside an echo of the same messages."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count

from diptych.ordering.v1 import query_service_pb2 as ordering
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import Message

from bench import requests
from bench.baseline import Rival
from bench.comparison import Contestant, Sample
from bench.environment import IN_FLIGHT, Scene, pid
from devstack.processes import Process
from operations.processes import COMMAND_SERVER, QUERY_SERVER, ProcessKind

QUERY, COMMAND = "/diptych.ordering.v1.QueryService", "/diptych.ordering.v1.CommandService"
GET, BATCH, LIST = f"{QUERY}/GetOrder", f"{QUERY}/BatchGetOrders", f"{QUERY}/ListOrders"
STOCKKEEPING = "/diptych.inventory.v1.CommandService"
PLACE, RESERVE = f"{COMMAND}/PlaceOrder", f"{STOCKKEEPING}/ReserveStock"
CALLS = 4_000
"""Calls of one turn."""
BATCH_CALLS, LIST_CALLS = 800, 1_500
BATCH_SIZE, PAGE = 50, 20
LEVELS = (1, 4, 16, 64, 256)
"""Calls in flight, of the contestants that are called by several numbers of callers."""
MOMENT = 1.0
"""Seconds of a turn of theirs."""


def at_level(name: str, in_flight: int) -> str:
    """Return what a contestant is called with so many calls in flight."""
    return f"{name}, {in_flight} in flight"


class Served:
    """Contestants that are called through gRPC."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._turns = count()
        self._query, self._command = scene.stack.of(QUERY_SERVER)[0], scene.stack.of(COMMAND_SERVER)[0]
        servers = {name: server.child.process.pid for name, server in scene.stack.servers.items()}
        self._reading = {"query_server": pid(self._query), "redis": servers["redis_url"]}
        self._writing = {"command_server": pid(self._command), "postgres": servers["database_url"]}

    @asynccontextmanager
    async def _echo(self) -> AsyncIterator[tuple[str, dict[str, int]]]:
        """Run an echo of GetOrder and PlaceOrder; yield its address, and its process."""
        get = await self._scene.ask(self._query.address, GET, ordering.GetOrderRequest(order_id="o-1"))
        placed = await self._scene.ask(self._command.address, PLACE, next(requests.orders(1)))
        await self._scene.recount()
        async with self._scene.echo({GET: get, PLACE: placed}) as (address, process):
            yield address, {"echo": process}

    @asynccontextmanager
    async def contestants(self) -> AsyncIterator[list[Contestant]]:
        """Yield all of them, the echoes too."""
        for request in requests.stock():
            name = type(request).__name__.removesuffix("Request")
            await self._scene.ask(self._command.address, f"{STOCKKEEPING}/{name}", request)
        async with self._echo() as (echo, process):

            async def echo_get() -> Sample:
                return await self._play(echo, GET, self._reads(), CALLS, process)

            async def echo_place() -> Sample:
                return await self._play(echo, PLACE, requests.orders(CALLS), CALLS, process)

            yield [
                Contestant("echo of GetOrder", echo_get),
                Contestant("GetOrder", self.get),
                Contestant("BatchGetOrders", self.batch),
                Contestant("ListOrders", self.list),
                Contestant("echo of PlaceOrder", echo_place),
                Contestant("PlaceOrder", self.place),
                Contestant("ReserveStock", self.reserve),
                Contestant("eventsourcing", Rival(self._scene.stack.settings.database_url).run),
            ]

    @asynccontextmanager
    async def levels(self) -> AsyncIterator[list[Contestant]]:
        """Yield an echo, GetOrder and PlaceOrder, each with several numbers of calls in flight."""
        async with self._echo() as (echo, process):
            asked = self._scene.write("asked-levels", self._reads())

            async def reading(address: str, processes: dict[str, int], in_flight: int) -> Sample:
                return await self._scene.play(
                    address, GET, asked, seconds=MOMENT, processes=processes, in_flight=in_flight
                )

            async def placing(in_flight: int) -> Sample:
                calls = min(CALLS, 60 * in_flight)
                orders = self._scene.write("asked-PlaceOrder", requests.orders(calls))
                return await self._scene.play(
                    self._command.address,
                    PLACE,
                    orders,
                    calls,
                    processes=self._writing,
                    events=1,
                    in_flight=in_flight,
                )

            contestants = []
            for n in LEVELS:
                contestants += [
                    Contestant(at_level("echo of GetOrder", n), partial(reading, echo, process, n)),
                    Contestant(
                        at_level("GetOrder", n), partial(reading, self._query.address, self._reading, n)
                    ),
                    Contestant(at_level("PlaceOrder", n), partial(placing, n)),
                ]
            yield contestants

    @asynccontextmanager
    async def variants(self) -> AsyncIterator[list[Contestant]]:
        """Yield GetOrder and PlaceOrder as they are, with one part left out in turn, and with two workers."""
        query, command = self._varied(QUERY_SERVER), self._varied(COMMAND_SERVER)
        made = [*query.values(), *command.values()]
        await asyncio.gather(*(process.start() for process in made))
        try:
            yield [
                Contestant("GetOrder with all", self.get),
                *(Contestant(f"GetOrder {how}", partial(self.get, server)) for how, server in query.items()),
                Contestant("PlaceOrder with all", self.place),
                *(
                    Contestant(f"PlaceOrder {how}", partial(self.place, server))
                    for how, server in command.items()
                ),
            ]
        finally:
            await asyncio.gather(*(process.stop() for process in made))

    def _varied(self, kind: ProcessKind) -> dict[str, Process]:
        add = self._scene.stack.add
        without = replace(kind, module="bench.variants")
        return {
            "without telemetry": add(kind, (), {"OTEL_SDK_DISABLED": "true"}),
            "without validation": add(without, ["validation", kind.module]),
            "without JWT": add(without, ["jwt", kind.module]),
            "with 2 workers": add(kind, ["--workers", "2"]),
        }

    async def get(self, server: Process | None = None) -> Sample:
        """Read single orders, all over those that there are."""
        server = server or self._query
        processes = {**self._reading, "query_server": pid(server)}
        return await self._play(server.address, GET, self._reads(), CALLS, processes)

    async def batch(self) -> Sample:
        """Read orders by the fifty."""
        reads = (each.order_id for each in self._reads(BATCH_CALLS * BATCH_SIZE))
        asked = (
            ordering.BatchGetOrdersRequest(order_ids=[next(reads) for _ in range(BATCH_SIZE)])
            for _ in range(BATCH_CALLS)
        )
        return await self._play(self._query.address, BATCH, asked, BATCH_CALLS, self._reading)

    async def list(self, state: "Order.State.ValueType" = Order.STATE_UNSPECIFIED) -> Sample:
        """List orders of one customer, perhaps of one state, by the twenty."""
        asked = (
            ordering.ListOrdersRequest(customer_id=f"customer-{number % 1000}", state=state, page_size=PAGE)
            for number in range(LIST_CALLS)
        )
        return await self._play(self._query.address, LIST, asked, LIST_CALLS, self._reading)

    async def place(self, server: Process | None = None) -> Sample:
        """Place orders, each of its own aggregate."""
        server = server or self._command
        processes = {**self._writing, "command_server": pid(server)}
        return await self._play(server.address, PLACE, requests.orders(CALLS), CALLS, processes, events=1)

    async def reserve(self) -> Sample:
        """Reserve pieces of one sku in one warehouse, all of them."""
        return await self._play(
            self._command.address, RESERVE, requests.reservations(CALLS), CALLS, self._writing, events=2
        )

    async def _play(
        self,
        address: str,
        method: str,
        asked: Iterator[Message],
        calls: int,
        processes: dict[str, int],
        events: int = 0,
    ) -> Sample:
        path = self._scene.write(f"asked-{method.rpartition('/')[2]}", asked)
        return await self._scene.play(
            address, method, path, calls, processes=processes, events=events, in_flight=IN_FLIGHT
        )

    def _reads(self, number: int = CALLS) -> Iterator[ordering.GetOrderRequest]:
        return requests.reads("o-", self._scene.placed, next(self._turns) * number, number)
