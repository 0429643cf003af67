"""Commands and queries, for threads and for asyncio, against a method that answers as the test wants."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import diptych_client
import grpc
import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych_client import OutcomeUnknown, Rejection, aio
from opentelemetry import trace

from tests.support.builders.failed_calls import FailedCall, failed_call
from tests.support.ledger.stubs import commands, queries

ENDORSE = commands.EndorseChequeRequest(cheque_id="c-1")
GET, FOUND = queries.GetChequeRequest(cheque_id="c-1"), queries.GetChequeResponse()
RECEIPT = Receipt(aggregate_id="c-1", version=2, consistency_token="t-2")
ENDORSED = commands.EndorseChequeResponse(receipt=RECEIPT)
LOST = FailedCall(grpc.StatusCode.UNAVAILABLE, "connection reset")
Connect = Callable[..., Any]


class Method:
    """A method of a stub: answers with each response in turn, the last one for ever; records its calls."""

    def __init__(self, *responses: Any) -> None:
        self.is_called = threading.Event()
        self._responses = list(responses)
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.timeouts: list[float] = []

    def __call__(self, request: Any, *, timeout: float, metadata: Any) -> Any:
        self.requests.append(type(request).FromString(request.SerializeToString()))
        self.metadata.append(dict(metadata))
        self.timeouts.append(timeout)
        self.is_called.set()
        response = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
        if isinstance(response, Exception):
            raise response
        return response


class AsyncMethod(Method):
    """A method of a stub of grpc.aio."""

    async def __call__(self, *arguments: Any, **more: Any) -> Any:
        return super().__call__(*arguments, **more)


class Threads:
    """A connection for threads, called as the one for asyncio."""

    method = Method

    def __init__(self, target: str, *, follows: "Threads | None" = None, **more: Any) -> None:
        self.connection: diptych_client.Connection = diptych_client.connect(
            target, follows=follows.connection if follows else None, **more
        )

    def send(self, *arguments: Any, **more: Any) -> Awaitable[Any]:
        return asyncio.to_thread(self.connection.send, *arguments, **more)

    def query(self, *arguments: Any, **more: Any) -> Awaitable[Any]:
        return asyncio.to_thread(self.connection.query, *arguments, **more)

    async def close(self) -> None:
        self.connection.close()


class Asyncio:
    """A connection for asyncio."""

    method = AsyncMethod

    def __init__(self, target: str, *, follows: "Asyncio | None" = None, **more: Any) -> None:
        self.connection: aio.Connection = aio.connect(
            target, follows=follows.connection if follows else None, **more
        )
        self.send = self.connection.send
        self.query = self.connection.query
        self.close = self.connection.close


@pytest.fixture(params=[Threads, Asyncio])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Makes connections, all of the same kind."""
    connections = []

    def make(**more: Any) -> Any:
        connections.append(request.param("127.0.0.1:1", **more))
        return connections[-1]

    yield make
    for connection in connections:
        await connection.close()


async def test_a_command_is_repeated_under_one_request_id(connect: Connect) -> None:
    connection = connect()
    endorse = connection.method(LOST, failed_call("STOPPING", retry_after=0.1), ENDORSED)
    assert await connection.send(endorse, ENDORSE) == RECEIPT
    assert len(endorse.requests) == 3
    assert len({request.request_id for request in endorse.requests}) == 1
    assert endorse.requests[0].cheque_id == "c-1"
    assert all(0 < timeout <= 5 for timeout in endorse.timeouts)


async def test_a_request_id_of_the_caller_is_kept_and_a_new_one_is_not(connect: Connect) -> None:
    connection = connect()
    endorse = connection.method(ENDORSED)
    await connection.send(endorse, commands.EndorseChequeRequest(request_id="mine"))
    await connection.send(endorse, ENDORSE)
    await connection.send(endorse, ENDORSE)
    ids = [request.request_id for request in endorse.requests]
    assert ids[0] == "mine"
    assert len(set(ids)) == 3, "the same message without an id is another intention"
    assert ENDORSE.request_id == ""


async def test_a_rejection_of_a_command_is_raised_at_once(connect: Connect) -> None:
    connection = connect()
    endorse = connection.method(
        failed_call("CHEQUE_WORTHLESS", {"chequeId": "c-1"}, code=grpc.StatusCode.FAILED_PRECONDITION)
    )
    with pytest.raises(Rejection) as raised:
        await connection.send(endorse, ENDORSE)
    assert (raised.value.reason, raised.value.metadata) == ("CHEQUE_WORTHLESS", {"chequeId": "c-1"})
    assert len(endorse.requests) == 1


async def test_a_command_without_an_answer_has_an_unknown_outcome(connect: Connect) -> None:
    connection = connect()
    endorse = connection.method(LOST)
    with pytest.raises(OutcomeUnknown) as raised:
        await connection.send(endorse, ENDORSE, timeout=0.3)
    assert raised.value.request_id == endorse.requests[-1].request_id
    assert raised.value.rejection.code == grpc.StatusCode.UNAVAILABLE
    assert len(endorse.requests) > 1


async def test_a_denial_after_a_lost_answer_leaves_the_outcome_open(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(OutcomeUnknown) as raised:
        await connection.send(connection.method(LOST, failed_call("SCOPE_MISSING")), ENDORSE)
    assert raised.value.rejection.reason == "SCOPE_MISSING"


async def test_a_query_includes_the_commands_that_fresh_names(connect: Connect) -> None:
    commands = connect()
    queries = connect(follows=commands)
    get = queries.method(FOUND)
    await queries.query(get, GET, fresh=True)
    await commands.send(commands.method(ENDORSED), ENDORSE)
    for fresh in (True, RECEIPT, "t-9", None):
        await queries.query(get, GET, fresh=fresh)
    assert [request.at_least_as_fresh for request in get.requests] == ["", "t-2", "t-2", "t-9", ""]
    assert queries.connection.consistency_token == "t-2"
    assert GET.at_least_as_fresh == ""


async def test_a_query_is_repeated_until_the_view_has_caught_up(connect: Connect) -> None:
    connection = connect()
    get = connection.method(
        failed_call("VIEW_BEHIND", retry_after=0.01),
        failed_call("VIEW_REBUILDING"),
        FOUND,
    )
    assert await connection.query(get, GET) == FOUND


async def test_a_query_that_cannot_be_answered_in_time_is_rejected(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(Rejection) as raised:
        await connection.query(connection.method(failed_call("VIEW_BEHIND")), GET, timeout=0.2)
    assert raised.value.reason == "VIEW_BEHIND"


async def test_an_expired_access_token_is_replaced_once_there_is_another(connect: Connect) -> None:
    tokens = iter(["old", "new", "newest", "newest"])
    connection = connect(token=lambda: next(tokens))
    get = connection.method(failed_call("TOKEN_EXPIRED"), FOUND, failed_call("TOKEN_EXPIRED"))
    await connection.query(get, GET)
    with pytest.raises(Rejection) as raised:
        await connection.query(get, GET)
    assert raised.value.reason == "TOKEN_EXPIRED"
    assert [metadata["authorization"] for metadata in get.metadata] == [
        "Bearer old",
        "Bearer new",
        "Bearer newest",
    ]


async def test_a_call_carries_the_callers_metadata_and_trace_context(connect: Connect) -> None:
    connection = connect(token="secret")
    get = connection.method(FOUND)
    await connection.query(get, GET, metadata=[("diptych-correlation-id", "c-1")])
    assert get.metadata[0] == {"authorization": "Bearer secret", "diptych-correlation-id": "c-1"}
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1)))
    with trace.use_span(span):
        await connection.query(get, GET)
    assert get.metadata[1]["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


async def test_closing_a_connection_ends_its_pauses(connect: Connect) -> None:
    connection = connect()
    endorse = connection.method(failed_call("WRITE_MODEL_UNAVAILABLE", retry_after=20))
    sending = asyncio.ensure_future(connection.send(endorse, ENDORSE))
    assert await asyncio.to_thread(endorse.is_called.wait, 5)
    await connection.close()
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(sending, 5)


async def test_a_coroutine_function_may_return_the_access_token() -> None:
    async def read() -> str:
        return "secret"

    connection = Asyncio("127.0.0.1:1", token=read)
    get: Any = AsyncMethod(FOUND)
    await connection.query(get, GET)
    assert get.metadata[0]["authorization"] == "Bearer secret"
    await connection.close()
