"""The overhead of diptych-client: calls by its connections, and the same calls by bare stubs.

One call is in flight at a time, so the time of a call is its caller's wait. The bare stubs are called as by
hand, on channels without options, with a timeout and the access token as metadata.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from time import perf_counter, process_time
from typing import Any

import diptych_client
import grpc
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub
from diptych_client import aio
from google.protobuf.message import Message

from bench import requests
from bench.comparison import Sample, Subject
from bench.environment import Environment
from operations.processes import COMMAND_SERVER, QUERY_SERVER

CALLS = 100
"""Calls per run; short runs in many rounds, because a few per cent are to be seen."""
TIMEOUT = 5.0
"""Seconds."""
METHODS = ("GetOrder", "PlaceOrder")
KINDS = ("threads", "asyncio")

Call = Callable[[Any], Any]


def name_client(method: str, kind: str) -> str:
    """Return the name of the subject that calls a method by a connection."""
    return f"{method} by diptych-client, {kind}"


def name_stub(method: str, kind: str) -> str:
    """Return the name of the subject that calls a method by a bare stub."""
    return f"{method} by a stub, {kind}"


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield GetOrder and PlaceOrder by stub and by connection, for threads and for asyncio."""
    query, command = (environment.stack.of(kind)[0].address for kind in (QUERY_SERVER, COMMAND_SERVER))
    runs = count()

    def generate_requests(method: str) -> Iterator[Message]:
        if method == "GetOrder":
            return requests.generate_reads("o-", environment.placed_orders, next(runs) * CALLS, CALLS)
        environment.expected_events += CALLS
        return requests.generate_orders(CALLS)

    async def run_threads(method: str, call: Call) -> Sample:
        return await asyncio.to_thread(_measure, call, list(generate_requests(method)))

    async def run_asyncio(method: str, call: Call) -> Sample:
        return await _measure_asyncio(call, list(generate_requests(method)))

    async with AsyncExitStack() as stack:
        subjects = []
        for kind, package, client, run in (
            ("threads", grpc, diptych_client, run_threads),
            ("asyncio", grpc.aio, aio, run_asyncio),
        ):
            opened: list[Any] = [
                *(package.insecure_channel(address) for address in (query, command)),
                *(client.connect(address, token=environment.token) for address in (query, command)),
            ]
            for connection in opened:
                stack.push_async_callback(_close, connection)
            subjects += [
                Subject(name, partial(run, method, call))
                for name, method, call in _list_calls(kind, environment.token, *opened)
            ]
        yield subjects


def _list_calls(
    kind: str, token: str, query_channel: Any, command_channel: Any, read: Any, write: Any
) -> list[tuple[str, str, Call]]:
    """Return each subject's name, method and call."""
    bare = {"timeout": TIMEOUT, "metadata": (("authorization", f"Bearer {token}"),)}
    stubs = {
        "GetOrder": QueryServiceStub(query_channel).GetOrder,
        "PlaceOrder": CommandServiceStub(command_channel).PlaceOrder,
    }
    connections = {
        "GetOrder": partial(read.query, QueryServiceStub(read.channel).GetOrder),
        "PlaceOrder": partial(write.send, CommandServiceStub(write.channel).PlaceOrder),
    }
    return [
        call
        for method in METHODS
        for call in (
            (name_stub(method, kind), method, partial(stubs[method], **bare)),
            (name_client(method, kind), method, connections[method]),
        )
    ]


async def _close(connection: Any) -> None:
    closing = connection.close()
    if closing is not None:
        await closing


def _measure(call: Call, messages: Sequence[Message]) -> Sample:
    times, cpu = [], process_time()
    for message in messages:
        start = perf_counter()
        call(message)
        times.append(perf_counter() - start)
    return make_sample(times, process_time() - cpu)


async def _measure_asyncio(call: Call, messages: Sequence[Message]) -> Sample:
    times, cpu = [], process_time()
    for message in messages:
        start = perf_counter()
        await call(message)
        times.append(perf_counter() - start)
    return make_sample(times, process_time() - cpu)


def make_sample(times: Sequence[float], cpu: float) -> Sample:
    """Return the sample of calls; their times and the caller's CPU time are in seconds."""
    latencies = sorted(1000 * time for time in times)
    percentiles = {"50": latencies[len(latencies) // 2], "99": latencies[int(len(latencies) * 0.99)]}
    return Sample(len(times) / sum(times), percentiles, {"caller": cpu * 1e6 / len(times)})
