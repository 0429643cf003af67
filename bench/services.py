"""Queries and commands through gRPC, against an echo server with the same messages."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from uuid import uuid4

from diptych.ordering.v1 import query_service_pb2 as ordering
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import Message

from bench import requests
from bench.baseline import Baseline
from bench.comparison import Sample, Subject
from bench.echo_process import run_echo
from bench.environment import H2CORN, IN_FLIGHT, Environment, get_pid
from devstack.processes import Process
from operations.processes import COMMAND_SERVER, QUERY_SERVER, ProcessKind

QUERY, COMMAND = "/diptych.ordering.v1.QueryService", "/diptych.ordering.v1.CommandService"
GET, BATCH, LIST = f"{QUERY}/GetOrder", f"{QUERY}/BatchGetOrders", f"{QUERY}/ListOrders"
STOCKKEEPING = "/diptych.inventory.v1.CommandService"
TICKETING = "/diptych.ticketing.v1.CommandService"
PLACE, RESERVE = f"{COMMAND}/PlaceOrder", f"{STOCKKEEPING}/ReserveStock"
RECEIVE = f"{STOCKKEEPING}/ReceiveGoods"
HOLD = f"{TICKETING}/HoldSeats"
REGISTER = "/diptych.customers.v1.CommandService/RegisterCustomer"
HOLDS_OF_ONE_SHOW = "HoldSeats of one show"
DELIVERIES_OF_ONE_ORDER = "ReceiveGoods of one order"
CALLS = 4_000
"""Calls per run of the complete bench."""
BATCH_CALLS, LIST_CALLS = 800, 1_500
BATCH_SIZE, PAGE_SIZE = 50, 20
LONE_CALLS = 500
"""Calls per run of a caller who has one in flight."""
LEVELS = (1, 4, 16, 64, 256)
"""Concurrent calls, for the subjects that are measured at several levels."""
LEVEL_SECONDS = 1.0
"""Seconds per run at one level of the complete bench."""


def name_at_level(name: str, in_flight: int) -> str:
    """Return the name of a subject at a number of concurrent calls."""
    return f"{name}, {in_flight} in flight"


def name_lone(name: str) -> str:
    """Return the name of the subject with a single caller."""
    return f"a lone caller's {name}"


def name_on_h2corn(name: str) -> str:
    """Return the name of a subject that is served by h2corn rather than by grpc.aio."""
    return f"{name} on h2corn"


@asynccontextmanager
async def run_call_echo(environment: Environment) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """Run an echo of GetOrder and PlaceOrder; yield its address, and its process id by name."""
    query, command = (environment.stack.of(kind)[0].address for kind in (QUERY_SERVER, COMMAND_SERVER))
    order = await environment.call(query, GET, ordering.GetOrderRequest(order_id="o-1"))
    receipt = await environment.call(command, PLACE, next(requests.generate_orders(1)))
    await environment.reset_expected_events()
    async with run_echo(environment.folder, {GET: order, PLACE: receipt}) as (address, process):
        yield address, {"echo": process}


class Services:
    """Subjects that are called through gRPC."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._runs = count()
        scale = environment.plan.scale
        self._calls, self._batch_calls, self._list_calls = scale(CALLS), scale(BATCH_CALLS), scale(LIST_CALLS)
        stack = environment.stack
        self._query, self._command = stack.of(QUERY_SERVER)[0], stack.of(COMMAND_SERVER)[0]
        servers = {name: server.child.process.pid for name, server in stack.servers.items()}
        self._query_processes = {"query_server": get_pid(self._query), "redis": servers["redis_url"]}
        self._command_processes = {
            "command_server": get_pid(self._command),
            "postgres": servers["database_url"],
        }

    @asynccontextmanager
    async def open_subjects(self) -> AsyncIterator[list[Subject]]:
        """Yield queries, commands, the echoes and the baseline; and queries and commands on h2corn."""
        for request in requests.create_stock_requests():
            name = type(request).__name__.removesuffix("Request")
            await self._environment.call(self._command.address, f"{STOCKKEEPING}/{name}", request)
        async with (
            run_call_echo(self._environment) as (echo, process),
            self._environment.run_on_h2corn(QUERY_SERVER) as fast_query,
            self._environment.run_on_h2corn(COMMAND_SERVER) as fast_command,
        ):

            async def echo_get() -> Sample:
                return await self._measure(echo, GET, self.generate_reads(), self._calls, process)

            async def echo_place() -> Sample:
                orders = requests.generate_orders(self._calls)
                return await self._measure(echo, PLACE, orders, self._calls, process)

            baseline = Baseline(self._environment.stack.settings.database_url)
            yield [
                Subject("echo of GetOrder", echo_get),
                Subject("GetOrder", self.get_orders),
                Subject(name_on_h2corn("GetOrder"), partial(self.get_orders, fast_query)),
                Subject("BatchGetOrders", self.batch_get_orders),
                Subject("ListOrders", self.list_orders),
                Subject(name_on_h2corn("ListOrders"), partial(self.list_orders, server=fast_query)),
                Subject("echo of PlaceOrder", echo_place),
                Subject("PlaceOrder", self.place_orders),
                Subject(name_on_h2corn("PlaceOrder"), partial(self.place_orders, fast_command)),
                Subject("ReserveStock", self.reserve_stock),
                Subject(DELIVERIES_OF_ONE_ORDER, self.receive_goods),
                Subject("RegisterCustomer", self.register_customers),
                Subject(HOLDS_OF_ONE_SHOW, self.hold_seats),
                Subject("eventsourcing", baseline.run),
                Subject(name_lone("echo"), partial(self._call_alone, GET, echo)),
                *(
                    Subject(name_lone(name), partial(self._call_alone, method, server.address, events))
                    for name, method, server, events in (
                        ("GetOrder", GET, self._query, 0),
                        (name_on_h2corn("GetOrder"), GET, fast_query, 0),
                        ("PlaceOrder", PLACE, self._command, 1),
                        (name_on_h2corn("PlaceOrder"), PLACE, fast_command, 1),
                    )
                ),
            ]

    async def _call_alone(self, method: str, address: str, events: int = 0) -> Sample:
        """Send one call after the other on a kept connection, so that a call's time is its caller's wait."""
        calls = self._environment.plan.scale(LONE_CALLS)
        messages = requests.generate_orders(calls) if events else self.generate_reads(calls)
        file = self._environment.write_requests("requests-lone", messages)
        return await self._environment.measure(
            address, method, file, calls, processes={}, events=events, in_flight=1
        )

    @asynccontextmanager
    async def open_levels(self) -> AsyncIterator[list[Subject]]:
        """Yield an echo, GetOrder and PlaceOrder, each at every level of concurrency."""
        async with run_call_echo(self._environment) as (echo, process):
            reads = self._environment.write_requests("requests-levels", self.generate_reads())

            async def get(address: str, processes: dict[str, int], in_flight: int) -> Sample:
                return await self._environment.measure(
                    address,
                    GET,
                    reads,
                    seconds=LEVEL_SECONDS * self._environment.plan.calls,
                    processes=processes,
                    in_flight=in_flight,
                )

            async def place(in_flight: int) -> Sample:
                calls = min(self._calls, 60 * in_flight)
                orders = self._environment.write_requests(
                    "requests-PlaceOrder", requests.generate_orders(calls)
                )
                return await self._environment.measure(
                    self._command.address,
                    PLACE,
                    orders,
                    calls,
                    processes=self._command_processes,
                    events=1,
                    in_flight=in_flight,
                )

            subjects = []
            for level in LEVELS:
                subjects += [
                    Subject(name_at_level("echo of GetOrder", level), partial(get, echo, process, level)),
                    Subject(
                        name_at_level("GetOrder", level),
                        partial(get, self._query.address, self._query_processes, level),
                    ),
                    Subject(name_at_level("PlaceOrder", level), partial(place, level)),
                ]
            yield subjects

    @asynccontextmanager
    async def open_variants(self) -> AsyncIterator[list[Subject]]:
        """Yield GetOrder and PlaceOrder unchanged, without each part in turn, with 2 workers, on h2corn."""
        queries, commands = self._add_variants(QUERY_SERVER), self._add_variants(COMMAND_SERVER)
        processes = [*queries.values(), *commands.values()]
        await asyncio.gather(*(process.start() for process in processes))
        try:
            yield [
                Subject("GetOrder with all", self.get_orders),
                *(
                    Subject(f"GetOrder {variant}", partial(self.get_orders, server))
                    for variant, server in queries.items()
                ),
                Subject("PlaceOrder with all", self.place_orders),
                *(
                    Subject(f"PlaceOrder {variant}", partial(self.place_orders, server))
                    for variant, server in commands.items()
                ),
            ]
        finally:
            await asyncio.gather(*(process.stop() for process in processes))

    def _add_variants(self, kind: ProcessKind) -> dict[str, Process]:
        add = self._environment.stack.add
        variant_kind = replace(kind, module="bench.variants")
        return {
            "without telemetry": add(kind, (), {"OTEL_SDK_DISABLED": "true"}),
            "without validation": add(variant_kind, ["validation", kind.module]),
            "without JWT": add(variant_kind, ["jwt", kind.module]),
            "with 2 workers": add(kind, ["--workers", "2"]),
            name_on_h2corn("with all"): add(kind, (), H2CORN),
            name_on_h2corn("without telemetry"): add(kind, (), {**H2CORN, "OTEL_SDK_DISABLED": "true"}),
        }

    async def get_orders(self, server: Process | None = None) -> Sample:
        """Read single orders, spread over all of them."""
        server = server or self._query
        processes = {**self._query_processes, "query_server": get_pid(server)}
        return await self._measure(server.address, GET, self.generate_reads(), self._calls, processes)

    async def batch_get_orders(self) -> Sample:
        """Read orders in batches of BATCH_SIZE."""
        reads = (read.order_id for read in self.generate_reads(self._batch_calls * BATCH_SIZE))
        messages = (
            ordering.BatchGetOrdersRequest(order_ids=[next(reads) for _ in range(BATCH_SIZE)])
            for _ in range(self._batch_calls)
        )
        return await self._measure(
            self._query.address, BATCH, messages, self._batch_calls, self._query_processes
        )

    async def list_orders(
        self, state: "Order.State.ValueType" = Order.STATE_UNSPECIFIED, server: Process | None = None
    ) -> Sample:
        """List the first PAGE_SIZE orders of single customers, optionally of one state."""
        server = server or self._query
        processes = {**self._query_processes, "query_server": get_pid(server)}
        messages = (
            ordering.ListOrdersRequest(
                customer_id=f"customer-{number % 1000}", state=state, page_size=PAGE_SIZE
            )
            for number in range(self._list_calls)
        )
        return await self._measure(server.address, LIST, messages, self._list_calls, processes)

    async def place_orders(self, server: Process | None = None) -> Sample:
        """Place orders, each in a stream of its own."""
        server = server or self._command
        processes = {**self._command_processes, "command_server": get_pid(server)}
        orders = requests.generate_orders(self._calls)
        return await self._measure(server.address, PLACE, orders, self._calls, processes, events=1)

    async def reserve_stock(self) -> Sample:
        """Reserve pieces of one stock, so that all commands change the same stream."""
        reservations = requests.generate_reservations(self._calls)
        return await self._measure(
            self._command.address, RESERVE, reservations, self._calls, self._command_processes, events=2
        )

    async def receive_goods(self) -> Sample:
        """Receive goods of one purchase order, a new one in each run, into one stock."""
        order_id = str(uuid4())
        for request in requests.create_purchase(order_id):
            name = type(request).__name__.removesuffix("Request")
            await self._environment.call(self._command.address, f"{STOCKKEEPING}/{name}", request)
        await self._environment.reset_expected_events()
        deliveries = requests.generate_deliveries(order_id, self._calls)
        return await self._measure(
            self._command.address, RECEIVE, deliveries, self._calls, self._command_processes, events=3
        )

    async def register_customers(self) -> Sample:
        """Register customers, each with the claim of an email address."""
        registrations = requests.generate_registrations(self._calls)
        return await self._measure(
            self._command.address, REGISTER, registrations, self._calls, self._command_processes, events=2
        )

    async def hold_seats(self) -> Sample:
        """Hold pairs of seats of one show, a new one of 10,000 seats in each run."""
        show = requests.create_show(str(uuid4()))
        await self._environment.call(self._command.address, f"{TICKETING}/ScheduleShow", show)
        await self._environment.reset_expected_events()
        holds = requests.generate_holds(show.show_id, self._calls)
        return await self._measure(
            self._command.address, HOLD, holds, self._calls, self._command_processes, events=3
        )

    async def _measure(
        self,
        address: str,
        method: str,
        messages: Iterator[Message],
        calls: int,
        processes: dict[str, int],
        events: int = 0,
    ) -> Sample:
        requests_file = self._environment.write_requests(f"requests-{method.rpartition('/')[2]}", messages)
        return await self._environment.measure(
            address, method, requests_file, calls, processes=processes, events=events, in_flight=IN_FLIGHT
        )

    def generate_reads(self, number: int = CALLS) -> Iterator[ordering.GetOrderRequest]:
        """Yield reads that go on where the last ones ended."""
        first = next(self._runs) * number
        return requests.generate_reads("o-", self._environment.placed_orders, first, number)
