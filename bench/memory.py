"""The memory that an idle connection and an idle watch take in a query server."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

import grpc
from diptych.ordering.v1.query_service_pb2 import GetOrderRequest, WatchOrderRequest
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub

from bench.comparison import Sample, Subject
from bench.environment import H2CORN, Environment, get_pid
from bench.process_cost import read_memory
from bench.services import name_on_h2corn
from operations.processes import QUERY_SERVER

CONNECTION, WATCH = "an idle connection", "an idle watch"
CONNECTIONS = 500
"""Connections per run, each idle after one GetOrder."""
WATCHES = 1_000
"""Watches per run, each idle after its first response."""
WATCH_CONNECTIONS = 10
WARM_UP = 50
"""Connections that are opened, with a call each, before memory is read."""
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)

Metadata = tuple[tuple[str, str], ...]
Open = Callable[[Any, Metadata], Awaitable[object]]


async def get(stub: Any, metadata: Metadata) -> None:
    await stub.GetOrder(GetOrderRequest(order_id="o-1"), metadata=metadata)


async def watch(stub: Any, metadata: Metadata) -> object:
    """Open a watch and receive its first response; return the call."""
    call = stub.WatchOrder(WatchOrderRequest(order_id="o-1"), metadata=metadata)
    await call.read()
    return call


async def measure(
    environment: Environment, variables: Mapping[str, str], connections: int, calls: int, open_call: Open
) -> Sample:
    """Return the memory of a server for each of these connections with these calls.

    The server is a new one each time, since a process keeps and reuses the memory of what has ended.
    """
    process = environment.stack.add(QUERY_SERVER, (), variables)
    metadata = (("authorization", f"Bearer {environment.token}"),)
    await process.start()
    try:
        async with AsyncExitStack() as stack:

            async def open_connection(calls: int) -> list[object]:
                channel = grpc.aio.insecure_channel(process.address, OWN_CONNECTION)
                await stack.enter_async_context(channel)
                return [await open_call(QueryServiceStub(channel), metadata) for _ in range(calls)]

            kept = [await open_connection(1) for _ in range(WARM_UP)]
            before, start = read_memory(get_pid(process)), perf_counter()
            kept += [await open_connection(calls) for _ in range(connections)]
            seconds = perf_counter() - start
            memory = read_memory(get_pid(process)) - before
            count = connections * calls
            return Sample(count / seconds, memory=memory / count)
    finally:
        await process.stop()


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield connections and watches, on grpc.aio and on h2corn."""
    variants = (
        (CONNECTION, CONNECTIONS, 1, get),
        (WATCH, WATCH_CONNECTIONS, WATCHES // WATCH_CONNECTIONS, watch),
    )
    yield [
        Subject(server_name(name), partial(measure, environment, variables, connections, calls, open_call))
        for name, connections, calls, open_call in variants
        for server_name, variables in ((str, {}), (name_on_h2corn, H2CORN))
    ]
