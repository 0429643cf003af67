"""Watches, for threads and for asyncio, on a gRPC server whose streams end as the test wants."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import diptych_client
import grpc
import pytest
from diptych_client import Rejection, aio

from tests.support.builders.failed_calls import FailedCall, failed_call
from tests.support.ledger.stubs import queries, queries_grpc

CUT = FailedCall(grpc.StatusCode.UNAVAILABLE)
OPEN = "the stream stays open"
END = "the stream ends without an error"


class Server(queries_grpc.QueryServiceServicer):  # type: ignore[misc]
    """Sends the parts of each script to one call after the other: resume tokens, then an end."""

    def __init__(self) -> None:
        self.scripts: list[tuple[Any, ...]] = []
        self.requests: list[Any] = []
        self.authorizations: list[Any] = []
        self.deadlines: list[Any] = []
        self.cancelled = asyncio.Event()

    async def WatchCheque(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.requests.append(request)
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        self.deadlines.append(context.time_remaining())
        for part in self.scripts.pop(0):
            if isinstance(part, FailedCall):
                await context.abort(part.code(), part.details(), part.trailing_metadata())
            elif part is OPEN:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            elif part is not END:
                yield queries.WatchChequeResponse(resume_token=part)


class Threads:
    """A connection for threads, whose watch is read in a thread of its own."""

    def __init__(self, target: str, token: Any) -> None:
        self.connection = diptych_client.connect(target, token=token)
        self.stub: Any = queries_grpc.QueryServiceStub(self.connection.channel)

    def watch(self, request: Any, **more: Any) -> Any:
        return self.connection.watch(self.stub.WatchCheque, request, **more)

    async def read(self, watch: Any) -> str | None:
        response = await asyncio.wait_for(asyncio.to_thread(next, watch, None), 10)
        return response and response.resume_token

    async def close(self) -> None:
        await asyncio.to_thread(self.connection.close)


class Asyncio:
    """A connection for asyncio."""

    def __init__(self, target: str, token: Any) -> None:
        self.connection = aio.connect(target, token=token)
        self.stub: Any = queries_grpc.QueryServiceStub(self.connection.channel)
        self.close = self.connection.close

    def watch(self, request: Any, **more: Any) -> Any:
        return self.connection.watch(self.stub.WatchCheque, request, **more)

    async def read(self, watch: Any) -> str | None:
        response = await asyncio.wait_for(anext(watch, None), 10)
        return response and response.resume_token


class Tokens:
    """Access tokens: `token-1`, `token-2` and so on."""

    count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"token-{self.count}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    servicer = Server()
    server = grpc.aio.server()
    queries_grpc.add_QueryServiceServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer
    await server.stop(None)


@pytest.fixture(params=[Threads, Asyncio])
async def client(request: pytest.FixtureRequest, server: Any) -> AsyncIterator[Any]:
    client = request.param(f"127.0.0.1:{server.port}", Tokens())
    yield client
    await client.close()


CHEQUE = queries.WatchChequeRequest(cheque_id="c-1")


async def test_a_watch_resumes_from_its_last_response_with_a_fresh_token(server: Server, client: Any) -> None:
    expired = failed_call("TOKEN_EXPIRED")
    server.scripts = [("a", "b", CUT), (CUT,), ("c", expired), ("d", END), ("e", OPEN)]
    watch = client.watch(CHEQUE, fresh="t-1")
    assert [await client.read(watch) for _ in range(5)] == ["a", "b", "c", "d", "e"]
    assert [request.resume_token for request in server.requests] == ["", "b", "b", "c", "d"]
    assert {request.at_least_as_fresh for request in server.requests} == {"t-1"}
    assert server.authorizations == [f"Bearer token-{number}" for number in range(1, 6)]
    assert server.deadlines == [None] * 5
    assert watch.resume_token == "e"
    assert CHEQUE.resume_token == ""


async def test_a_watch_continues_an_earlier_one(server: Server, client: Any) -> None:
    server.scripts = [("b", OPEN)]
    assert (
        await client.read(client.watch(queries.WatchChequeRequest(cheque_id="c-1", resume_token="a"))) == "b"
    )
    assert server.requests[0].resume_token == "a"


@pytest.mark.parametrize("reason", ["REQUEST_INVALID", "SCOPE_MISSING", "TOKEN_OUTDATED", "UNAUTHENTICATED"])
async def test_an_error_that_is_final_is_raised_and_ends_the_watch(
    server: Server, client: Any, reason: str
) -> None:
    server.scripts = [("a", failed_call(reason))]
    watch = client.watch(CHEQUE)
    assert await client.read(watch) == "a"
    with pytest.raises(Rejection) as raised:
        await client.read(watch)
    assert raised.value.reason == reason
    assert await client.read(watch) is None


async def test_closing_a_watch_ends_its_iteration_and_its_stream(server: Server, client: Any) -> None:
    server.scripts = [("a", OPEN)]
    watch = client.watch(CHEQUE)
    assert await client.read(watch) == "a"
    reading = asyncio.create_task(client.read(watch))
    await asyncio.sleep(0.05)  # so that it usually waits for the stream
    watch.close()
    assert await reading is None
    await asyncio.wait_for(server.cancelled.wait(), 5)


async def test_closing_the_connection_ends_its_watches(server: Server, client: Any) -> None:
    server.scripts = [("a", OPEN), (failed_call("VIEW_REBUILDING", retry_after=60),)]
    watches = [client.watch(CHEQUE), client.watch(CHEQUE)]
    assert await client.read(watches[0]) == "a"
    reading = [asyncio.create_task(client.read(watch)) for watch in watches]
    await asyncio.sleep(0.05)  # so that one usually waits for its stream, and one for its next attempt
    await client.close()
    assert await asyncio.gather(*reading) == [None, None]


async def test_a_watch_that_is_dropped_ends_its_stream(server: Server, client: Any) -> None:
    server.scripts = [("a", OPEN)]
    watch = client.watch(CHEQUE)
    assert await client.read(watch) == "a"
    del watch
    gc.collect()
    await asyncio.wait_for(server.cancelled.wait(), 5)


async def test_a_cancelled_read_loses_no_response(server: Any) -> None:
    client = Asyncio(f"127.0.0.1:{server.port}", "secret")
    server.scripts = [("a", OPEN), ("b", OPEN)]
    watch = client.watch(CHEQUE)
    assert await client.read(watch) == "a"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.05)
    assert await client.read(watch) == "b"
    assert [request.resume_token for request in server.requests] == ["", "a"]
    await client.close()
