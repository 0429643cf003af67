"""Requests and events on record, through the operations server."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from secrets import randbits
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.dead_letters_pb2 import EventContent
from diptych.ordering.v1 import events_pb2 as ordering_events
from diptych.ordering.v1 import types_pb2 as ordering_types

from devstack.stack import Stack
from operations.processes import OPERATIONS_SERVER
from tests.integration.operations_server.conftest import NEW_INCARNATION
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import start_command
from tests.support.harness.recorder import ADD_EVENT, Recorder, encode_metadata
from tests.support.harness.waiting import until

STREAM = "ordering.order.o-1"
CANCELLED = "diptych.ordering.v1.OrderCancelled"


@pytest.fixture
def stack(shared_stack: Stack, database: Any) -> Stack:
    return shared_stack


async def add_event(
    database: Any,
    version: int,
    data: bytes = b"",
    *,
    stream: str = STREAM,
    type_: str = CANCELLED,
    metadata: str | None = None,
    at: datetime | None = None,
) -> int:
    """Record an event; return its position."""
    text = metadata or encode_metadata(actor="alice", correlation_id="c-1", causation_id=f"r-{version}")
    time = at or datetime.now(UTC)
    return int(await database.fetchval(ADD_EVENT, stream, version, type_, data, text, time))


async def list_events(operator: Caller, **fields: Any) -> list[Any]:
    """Return the events of all pages."""
    events, token = list[Any](), ""
    while True:
        response = await operator.query(protocol.ListEventsRequest(**fields, page_token=token))
        events += response.events
        if not (token := response.next_page_token):
            return events


async def list_requests(operator: Caller, **fields: Any) -> list[Any]:
    requests, token = list[Any](), ""
    while True:
        response = await operator.query(protocol.ListRequestsRequest(**fields, page_token=token))
        requests += response.requests
        if not (token := response.next_page_token):
            return requests


async def test_requests_are_found_by_what_operators_know(
    stack: Stack, operator: Caller, database: Any
) -> None:
    seed = randbits(32)
    print(f"seed {seed}")
    await Recorder("r", Random(seed)).record(stack.settings.database_url, 30)
    rows = await database.fetch("SELECT * FROM audit ORDER BY recorded_at DESC, caller, request_id::text")
    listed = await list_requests(operator, page_size=7)
    assert [request.request_id for request in listed] == [str(row["request_id"]) for row in rows]
    for name, column in {"caller": "caller", "stream": "stream", "command": "type"}.items():
        value = rows[3][column]
        found = await list_requests(operator, **{name: value})
        assert len(found) == sum(row[column] == value for row in rows), name
    (only,) = await list_requests(operator, request_id=str(rows[0]["request_id"]).upper())
    assert (only.caller, only.trace_id) == (rows[0]["caller"], rows[0]["traceparent"].split("-")[1])
    rejected = await list_requests(operator, outcome="REJECTED")
    assert len(rejected) == sum(row["outcome"] != "ACCEPTED" for row in rows) > 0


async def test_events_that_this_release_cannot_show_are_shown_as_what_they_are(
    confidant: Caller, database: Any
) -> None:
    good = ordering_events.OrderCancelled(order_id="o-1", reason="late").SerializeToString()
    surrogate = '{"actor": "\\ud800x", "correlation_id": "c-\\udfff", "causation_id": "r"}'
    await add_event(database, 1, good)
    await add_event(database, 2, b"\xff\xff\xff")
    await add_event(database, 3, b"\x0a\x02\xed\xa0", type_="diptych.ordering.v9.OrderTeleported")
    await add_event(database, 4, good, metadata=surrogate)
    await add_event(database, 5, good, metadata="[1]")
    await add_event(database, 6, b"\x0a" + b"\x80\x80\x1e" + b"x" * (15 << 15), type_=CANCELLED)
    for fields in ({"stream": STREAM}, {"page_size": 2}):
        shown = await list_events(confidant, content=EventContent.EVENT_CONTENT_FULL, **fields)
        assert [event.version for event in shown] == [1, 2, 3, 4, 5, 6]
        assert [bool(event.error) for event in shown] == [False, True, True, False, False, True]
        assert dict(shown[0].data) == {"order_id": "o-1", "reason": "late"}
        assert shown[1].encoded_data == b"\xff\xff\xff"
        assert shown[3].actor == "\\ud800x"
        assert len(shown[5].encoded_data) > 400_000
    assert [event.version for event in await list_events(confidant, correlation_id="c-1")] == [1, 2, 3, 6]
    assert [event.version for event in await list_events(confidant, type="OrderTeleported")] == [3]


async def test_a_page_ends_before_it_is_too_large_for_a_response(confidant: Caller, database: Any) -> None:
    for version in range(1, 16):
        await add_event(database, version, b"x" * 500_000, type_="t.Unknown")
    full = EventContent.EVENT_CONTENT_FULL
    response = await confidant.query(protocol.ListEventsRequest(page_size=15, content=full))
    assert 0 < len(response.events) < 15
    listed = await list_events(confidant, page_size=15, content=full)
    assert [event.version for event in listed] == list(range(1, 16))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"until_version": 3}, "REQUEST_INVALID"),
        ({"page_token": "made up"}, "PAGE_TOKEN_INVALID"),
        ({"page_size": 1_001}, "REQUEST_INVALID"),
    ],
)
async def test_bad_questions_about_events_are_refused(
    operator: Caller, fields: dict[str, Any], reason: str
) -> None:
    assert await operator.rejection_reason(protocol.ListEventsRequest(**fields)) == reason


async def test_a_request_id_that_is_none_is_refused(operator: Caller) -> None:
    request = protocol.ListRequestsRequest(request_id="o-1")
    assert await operator.rejection_reason(request) == "REQUEST_INVALID"


async def test_page_tokens_belong_to_their_filters_and_to_the_incarnation(
    operator: Caller, database: Any
) -> None:
    for version in range(1, 4):
        await add_event(database, version)
    page = await operator.query(protocol.ListEventsRequest(page_size=1))
    other = protocol.ListEventsRequest(page_size=1, type="x", page_token=page.next_page_token)
    assert await operator.rejection_reason(other) == "PAGE_TOKEN_INVALID"
    await database.execute(NEW_INCARNATION)
    same = protocol.ListEventsRequest(page_size=1, page_token=page.next_page_token)
    assert await operator.rejection_reason(same) == "PAGE_TOKEN_INVALID"


async def test_events_after_an_open_transaction_wait_and_nothing_is_left_out(
    stack: Stack, operator: Caller, database: Any
) -> None:
    other = await asyncpg.connect(stack.settings.database_url)
    await add_event(database, 1)
    assert len(await list_events(operator)) == 1
    transaction = other.transaction()
    await transaction.start()
    await add_event(other, 1, stream="ordering.order.o-2")
    await add_event(database, 2)
    assert [event.version for event in await list_events(operator)] == [1]
    assert [event.version for event in await list_events(operator, stream=STREAM)] == [1, 2]
    await transaction.commit()
    assert [event.position for event in await list_events(operator)] == [1, 2, 3]
    await other.close()


async def read_tail(call: Any, count: int) -> list[int]:
    positions: list[int] = []
    async with asyncio.timeout(10):
        async for response in call:
            positions += [event.position for event in response.events]
            if len(positions) >= count:
                break
    return positions


async def test_a_tail_begins_now_or_after_a_position_and_applies_its_filters(
    operator: Caller, database: Any
) -> None:
    first = await add_event(database, 1)
    new = operator.watch(protocol.TailEventsRequest())
    resumed = operator.watch(protocol.TailEventsRequest(after_position=0))
    filtered = operator.watch(protocol.TailEventsRequest(after_position=0, stream="ordering.order.o-2"))
    assert await read_tail(resumed, 1) == [first]
    reading = asyncio.gather(read_tail(new, 1), read_tail(filtered, 2))
    await operator.query(
        protocol.ListEventsRequest()
    )  # answered after the tails on the same connection began
    second = await add_event(database, 1, stream="ordering.order.o-2")
    third = await add_event(database, 2, stream="ordering.order.o-2")
    seen, of_stream = await reading
    assert seen in ([second], [second, third])
    assert of_stream == [second, third]
    beyond = protocol.TailEventsRequest(after_position=third + 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_tail(operator.watch(beyond), 1)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_an_export_has_every_event_once_and_is_resumed_by_position(
    stack: Stack, operator: Caller, database: Any
) -> None:
    for version in range(1, 1_201):
        await add_event(database, version)
    call: Any = operator.watch(protocol.ExportEventsRequest())
    first = await anext(aiter(call))
    call.cancel()
    assert (first.until_position, len(first.events)) == (1_200, 500)
    rest = [
        response
        async for response in operator.watch(protocol.ExportEventsRequest(after_position=first.position))
    ]
    assert [event.position for response in (first, *rest) for event in response.events] == list(
        range(1, 1_201)
    )
    assert rest[-1].position == 1_200


async def test_the_index_follows_by_itself(stack: Stack, operator: Caller, database: Any) -> None:
    """A thousand events are indexed at once; fewer would wait."""
    await database.execute(
        """INSERT INTO events (stream, version, type, data, metadata, recorded_at)
        SELECT 's.t.' || n, 1, 't.A', '', json_build_object('correlation_id', 'c-' || n % 100), now()
        FROM generate_series(1, 1500) n"""
    )

    async def is_indexed() -> bool:
        return int(await database.fetchval("SELECT coalesce(max(until), 0) FROM event_segments")) == 1_500

    await until(is_indexed)
    assert len(await list_events(operator, correlation_id="c-7")) == 15


async def test_state_of_no_such_stream_version_or_time_is_refused(operator: Caller, database: Any) -> None:
    now = datetime.now(UTC)
    missing = protocol.GetStateRequest(stream=f"ordering.order.{uuid4().hex}")
    assert await operator.rejection_reason(missing) == "STREAM_NOT_FOUND"
    await add_event(database, 1, at=now)
    beyond = protocol.GetStateRequest(stream=STREAM, version=2)
    assert await operator.rejection_reason(beyond) == "VERSION_NOT_REACHED"
    for offset, reason in (
        (timedelta(hours=1), "TIME_IN_FUTURE"),
        (-timedelta(hours=1), "BEFORE_FIRST_EVENT"),
    ):
        request = protocol.GetStateRequest(stream=STREAM)
        request.time.FromDatetime(now + offset)
        assert await operator.rejection_reason(request) == reason


async def test_a_state_and_a_view_that_are_too_large_are_left_out(operator: Caller, database: Any) -> None:
    lines = [ordering_types.OrderLine(sku=f"s-{number:040}", quantity=1) for number in range(80_000)]
    placed = ordering_events.OrderPlaced(order_id="o-1", customer_id="ada", lines=lines)
    await add_event(database, 1, placed.SerializeToString(), type_="diptych.ordering.v1.OrderPlaced")
    response = await operator.query(protocol.GetStateRequest(stream=STREAM))
    assert list(response.views) == ["ordering.order_history"]
    assert not response.HasField("state")
    assert "too large for a response" in response.view_errors["ordering.order"]
    assert "too large for a response" in response.state_error


async def test_events_as_of_no_such_version_or_time_are_refused(operator: Caller, database: Any) -> None:
    now = datetime.now(UTC)

    def ask(time: datetime | None = None, **fields: Any) -> protocol.ListEventsRequest:
        request = protocol.ListEventsRequest(**fields)
        if time is not None:
            request.as_of.FromDatetime(time)
        return request

    missing = ask(now, stream=f"ordering.order.{uuid4().hex}")
    assert await operator.rejection_reason(missing) == "STREAM_NOT_FOUND"
    await add_event(database, 1, at=now)
    await add_event(database, 2, at=now + timedelta(milliseconds=1))
    beyond = ask(stream=STREAM, until_version=3)
    assert await operator.rejection_reason(beyond) == "VERSION_NOT_REACHED"
    hour = timedelta(hours=1)
    for stream in (STREAM, ""):
        assert await operator.rejection_reason(ask(now + hour, stream=stream)) == "TIME_IN_FUTURE"
        assert await operator.rejection_reason(ask(now - hour, stream=stream)) == "BEFORE_FIRST_EVENT"
        listed = await operator.query(ask(now, stream=stream))
        assert [event.version for event in listed.events] == [1]


async def test_a_tail_ends_when_the_database_is_restored_and_when_the_server_stops(
    stack: Stack, operator: Caller, database: Any
) -> None:
    call = operator.watch(protocol.TailEventsRequest(after_position=0))
    await add_event(database, 1)
    await read_tail(call, 1)
    await database.execute(NEW_INCARNATION)
    with pytest.raises(grpc.aio.AioRpcError, match="restored"):
        await read_tail(call, 1)
    other = operator.watch(protocol.TailEventsRequest(after_position=0))
    await read_tail(other, 1)
    command = await start_command(stack, "events", "tail", "--after", "0")
    assert command.stdout and command.stderr
    await command.stdout.readline()
    (server,) = stack.of(OPERATIONS_SERVER)
    assert await server.stop() == 0
    assert (await command.stderr.read()).endswith(b"; continue with --after 1\n")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_tail(other, 1)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
