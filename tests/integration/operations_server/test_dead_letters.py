"""Dead letters over the API: projections and sagas in one list, shown with their events, and retried."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.dead_letters_pb2 import DeadLetter, EventContent
from diptych.ordering.v2 import events_pb2 as events
from redis.asyncio import Redis

from contracts.skips import INCARNATION
from contracts.view_layout import GENERATION, View
from devstack.stack import Stack
from operations.projections import list_views
from operations.rendering.values import to_fields
from process_manager.sagas.fulfilment import FULFILMENT
from projector.records import Parked
from tests.support.harness.caller import Caller
from tests.support.harness.changed_record import ALLOW_CHANGES

ORDERS = "ordering.order"
HISTORIES = "ordering.order_history"
NOW = int(datetime.now(UTC).timestamp() * 1000)
HOUR = 3_600_000
ADD_EVENT = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at) VALUES ($1, $2, $3, $4, '{}', $5)
"""
ADD_STREAM = """
INSERT INTO streams (id, type, version, updated_at, state_version, fingerprint)
VALUES ($1, 'ordering.order', $2, now(), 0, '')
"""
ADD_SAGA = """
INSERT INTO sagas (saga, id, partition, version, state, status, ended, waiting_for, blocked_reason,
  failed_input, correlation_id, began_at, status_since, other_streams)
VALUES ('fulfilment.fulfilment', $1, 0, 2, $2, 'PREPARING', false, '', 'it failed', $3, '', now(), now(), $4)
"""
PARK_STREAM = """
INSERT INTO saga_parked_streams (saga, stream, stream_type, partition, version, error, since)
VALUES ('fulfilment.fulfilment', $1, 'ordering.order', 0, 4, $2, $3)
"""
EMPTY = f"""
{ALLOW_CHANGES};
TRUNCATE events, streams, sagas, saga_parked_streams, operator_acts, skipped_events RESTART IDENTITY
"""
SKIPPED = "SELECT consumer, stream, version, reason, subject FROM skipped_events"
ACTS = "SELECT act, target, reason, outcome FROM operator_acts ORDER BY number"


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    return shared_stack


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.flushdb()
        yield redis


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(EMPTY)
    yield connection
    await connection.close()


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Caller]:
    operator = Caller(stack, "operations.read", "operations.act")
    yield operator
    await operator.close()


def find_view(stack: Stack, name: str) -> View:
    (view,) = [view for view in list_views(stack.settings) if view.projection == name]
    return view


async def park(
    stack: Stack,
    redis: Redis,
    name: str,
    id_: str,
    since: int,
    error: str = "no paper",
    generation: str = GENERATION,
) -> None:
    """Park an aggregate as a projector does."""
    view = find_view(stack, name).at(generation)
    stream = f"{view.source_streams[0]}.{id_}"
    parked = Parked(stream, 3, error, since, 5, None, "parked", stale_since=since, place="a/b.py:7 in paid")
    record = msgspec.json.encode(parked)
    await redis.hset(view.key(id_), mapping={"version": 2, "revision": 1, "entries": "[]", "parked": record})
    await redis.hset(view.parked, id_, record)
    await redis.zadd(view.parked_since, {id_: since})


async def begin_build(stack: Stack, redis: Redis, name: str, generation: str = GENERATION) -> None:
    """Begin a build, as a projector does."""
    view = find_view(stack, name).at(generation)
    await redis.set(view.build, "incarnation/build")
    await redis.hset(view.checkpoints, mapping={str(number): "epoch/0" for number in range(16)})


async def plant_sagas(database: Any) -> None:
    """Add an instance that failed on two events, and a parked stream, with the times of their events."""
    state = msgspec.json.encode(FULFILMENT.initial).decode()
    failed = "version 3 failed: KeyError: 'x' [process_manager/sagas/s.py:9 in react]"
    others = json.dumps(
        {"banking.hold.h": {"version": 1, "failed_input": "version 5 of banking.hold.h failed: y"}}
    )
    await database.execute(ADD_SAGA, "o-1", state, failed, others)
    at = datetime.fromtimestamp(NOW / 1000, UTC)
    await database.execute(ADD_EVENT, "ordering.order.o-1", 3, "t.X", b"", at - timedelta(hours=5))
    await database.execute(ADD_EVENT, "banking.hold.h", 5, "t.X", b"", at - timedelta(hours=2))
    await database.execute(
        PARK_STREAM, "ordering.order.o-9", "RuntimeError: the key", at - timedelta(hours=3)
    )
    await database.execute(PARK_STREAM, "ordering.order.o-8", "", at)  # it is being read, and no dead letter


async def list_all(operator: Caller, **filters: Any) -> tuple[list[DeadLetter], int]:
    """Return the entries of all pages, and the number of pages."""
    letters: list[DeadLetter] = []
    pages, token = 0, ""
    while pages == 0 or token:
        page = await operator.query(protocol.ListDeadLettersRequest(page_token=token, **filters))
        letters += page.dead_letters
        pages, token = pages + 1, page.next_page_token
    return letters, pages


def name(letter: DeadLetter) -> tuple[str, str, str, int]:
    return letter.projection or letter.saga, letter.id, letter.stream, letter.version


async def test_projections_and_sagas_are_one_list(
    stack: Stack, operator: Caller, redis: Redis, database: Any
) -> None:
    for number in range(6):
        await park(stack, redis, (ORDERS, HISTORIES)[number % 2], f"o-{number}", NOW - number * HOUR)
    await plant_sagas(database)
    expected = [
        (HISTORIES, "o-5", "ordering.order.o-5", 3),
        ("fulfilment.fulfilment", "o-1", "ordering.order.o-1", 3),
        (ORDERS, "o-4", "ordering.order.o-4", 3),
        (HISTORIES, "o-3", "ordering.order.o-3", 3),
        ("fulfilment.fulfilment", "o-9", "ordering.order.o-9", 4),
        (ORDERS, "o-2", "ordering.order.o-2", 3),
        ("fulfilment.fulfilment", "o-1", "banking.hold.h", 5),
        (HISTORIES, "o-1", "ordering.order.o-1", 3),
        (ORDERS, "o-0", "ordering.order.o-0", 3),
    ]
    for size in (1, 2, 3, 50):
        letters, pages = await list_all(operator, page_size=size)
        assert sorted(map(name, letters)) == sorted(expected)
        assert [each.since.ToMilliseconds() for each in letters] == sorted(
            each.since.ToMilliseconds() for each in letters
        )
        assert pages == -(-len(expected) // size)
    by_filter = {
        "o-1": await list_all(operator, id="o-1"),
        "saga": await list_all(operator, saga="fulfilment.fulfilment"),
        "projection": await list_all(operator, projection=ORDERS),
        "error": await list_all(operator, error="the key"),
    }
    assert {key: len(letters) for key, (letters, _) in by_filter.items()} == {
        "o-1": 3,
        "saga": 3,
        "projection": 3,
        "error": 1,
    }
    before = datetime.fromtimestamp((NOW - 3 * HOUR - 1000) / 1000, UTC)
    request = protocol.ListDeadLettersRequest()
    request.since_before.FromDatetime(before)
    older = (await operator.query(request)).dead_letters
    assert [each.id for each in older] == ["o-5", "o-1", "o-4"]
    for refused, reason in (
        (protocol.ListDeadLettersRequest(projection="x.y"), "PROJECTION_UNKNOWN"),
        (protocol.ListDeadLettersRequest(saga="x.y"), "SAGA_UNKNOWN"),
        (protocol.GetDeadLetterRequest(id="o-77"), "DEAD_LETTER_NOT_FOUND"),
    ):
        assert await operator.rejection_reason(refused) == reason


async def test_a_dead_letter_is_shown_with_its_event(
    stack: Stack, operator: Caller, confidant: Caller, redis: Redis, database: Any
) -> None:
    placed = events.OrderPlaced(order_id="o-1")
    placed.groups.add().personal.shipping_address.recipient = "Ada"
    at = datetime.now(UTC)
    await database.execute(ADD_STREAM, "ordering.order.o-1", 7)
    type_ = placed.DESCRIPTOR.full_name
    await database.execute(ADD_EVENT, "ordering.order.o-1", 3, type_, placed.SerializeToString(), at)
    await park(stack, redis, ORDERS, "o-1", NOW)
    request = protocol.GetDeadLetterRequest(id="o-1")
    (details,) = (await operator.query(request)).dead_letters
    letter = details.dead_letter
    assert (letter.projection, letter.version, letter.attempts) == (ORDERS, 3, 5)
    assert (letter.error, letter.place) == ("no paper", "a/b.py:7 in paid")
    assert details.waiting_events == 4
    assert to_fields(details.event.data)["order_id"] == "o-1"
    assert "Ada" not in str(details)
    request.content = EventContent.EVENT_CONTENT_FULL
    assert await operator.rejection_reason(request) == "SCOPE_MISSING"
    assert "Ada" in str(await confidant.query(request))


async def test_dead_letters_are_retried_in_slices_that_are_on_record(
    stack: Stack, operator: Caller, redis: Redis, database: Any
) -> None:
    await begin_build(stack, redis, ORDERS)
    for number in range(7):
        await park(stack, redis, ORDERS, f"o-{number}", NOW + number, "ink" if number < 5 else "paper")
    await park(stack, redis, HISTORIES, "o-1", NOW, "ink")  # which is being built
    request = protocol.RetryDeadLettersRequest(error="ink", page_size=3, reason="mended")
    slices = [await operator.query(request)]
    while slices[-1].next_page_token:
        request.page_token = slices[-1].next_page_token
        slices.append(await operator.query(request))
    assert [(each.retried, len(each.refused)) for each in slices] == [(2, 1), (3, 0), (0, 0)]
    (refused,) = slices[0].refused
    assert (refused.projection, refused.error) == (
        HISTORIES,
        f"{HISTORIES} is being built; all aggregates are retried by that",
    )
    letters, _ = await list_all(operator, projection=ORDERS)
    assert {each.id for each in letters if each.HasField("next_attempt_time")} == {f"o-{n}" for n in range(5)}
    one = protocol.RetryDeadLettersRequest(id="o-6", projection=ORDERS, reason="alone")
    assert (await operator.query(one)).retried == 1
    assert await operator.rejection_reason(protocol.RetryDeadLettersRequest()) == "REQUEST_INVALID"
    assert [tuple(act) for act in await database.fetch(ACTS)] == [
        *(3 * [("RetryDeadLetters", "with 'ink'", "mended", "DONE")]),
        ("RetryDeadLetters", f"{ORDERS} o-6", "alone", "DONE"),
    ]


async def test_a_skip_is_a_row_and_makes_its_aggregate_due(
    stack: Stack, operator: Caller, redis: Redis, database: Any
) -> None:
    await begin_build(stack, redis, ORDERS)
    await park(stack, redis, ORDERS, "o-1", NOW)
    await park(stack, redis, ORDERS, "o-2", NOW, "EventsMissing: event 3 is missing")
    await park(stack, redis, ORDERS, "o-3", NOW)  # whose event PostgreSQL has not
    incarnation = str(await database.fetchval("SELECT incarnation FROM relay_state"))
    key = find_view(stack, ORDERS).skips
    await redis.hset(key, INCARNATION, incarnation)
    for id_ in ("o-1", "o-2"):
        await database.execute(ADD_EVENT, f"ordering.order.{id_}", 3, "t.X", b"", datetime.now(UTC))

    def skip(id_: str = "o-1", version: int = 3, **fields: Any) -> protocol.SkipDeadLetterRequest:
        fields = {"projection": ORDERS, "reason": "it was void"} | fields
        return protocol.SkipDeadLetterRequest(id=id_, version=version, **fields)

    for request, reason in (
        (skip(version=2), "DEAD_LETTER_AT_OTHER_VERSION"),
        (skip("o-9"), "DEAD_LETTER_NOT_FOUND"),
        (skip("o-2"), "SKIP_NOT_POSSIBLE"),
        (skip("o-3"), "SKIP_NOT_POSSIBLE"),
        (skip(projection=""), "REQUEST_INVALID"),
        (skip(saga="fulfilment.fulfilment"), "REQUEST_INVALID"),
        (skip(reason=""), "REQUEST_INVALID"),
    ):
        assert await operator.rejection_reason(request) == reason
    assert (await database.fetch(SKIPPED), await redis.hlen(key)) == ([], 1)
    letter = (await operator.query(skip())).dead_letter
    assert (letter.stream, letter.version) == ("ordering.order.o-1", 3)
    assert [tuple(row) for row in await database.fetch(SKIPPED)] == [
        (f"projection {ORDERS}", "ordering.order.o-1", 3, "it was void", "alice")
    ]
    assert await redis.hexists(key, "ordering.order.o-1@3")
    (due,) = (await list_all(operator, id="o-1"))[0]
    assert due.HasField("next_attempt_time")
    assert tuple((await database.fetch(ACTS))[-1]) == (
        "SkipDeadLetter",
        f"{ORDERS} o-1 version 3",
        "it was void",
        "DONE",
    )


async def test_no_copy_is_written_that_lacks_earlier_skips(
    stack: Stack, operator: Caller, redis: Redis, database: Any
) -> None:
    """Without a valid copy, projectors get all skipped events from the relay."""
    await begin_build(stack, redis, ORDERS)
    await park(stack, redis, ORDERS, "o-1", NOW)
    await database.execute(ADD_EVENT, "ordering.order.o-1", 3, "t.X", b"", datetime.now(UTC))
    request = protocol.SkipDeadLetterRequest(projection=ORDERS, id="o-1", version=3, reason="r")
    await operator.query(request)
    assert not await redis.exists(find_view(stack, ORDERS).skips)


async def test_dead_letters_are_those_of_the_generation_that_serves(
    stack: Stack, operator: Caller, redis: Redis, database: Any
) -> None:
    view = find_view(stack, ORDERS)
    for generation in (GENERATION, "2.1"):
        await begin_build(stack, redis, ORDERS, generation)
        await park(stack, redis, ORDERS, f"o-{generation}", NOW, generation=generation)
    assert [each.id for each in (await list_all(operator))[0]] == [f"o-{GENERATION}"]
    await redis.set(view.serving, "2.1")
    assert [each.id for each in (await list_all(operator))[0]] == ["o-2.1"]
    request = protocol.RetryDeadLettersRequest(id="o-2.1", reason="mended")
    assert (await operator.query(request)).retried == 1
    (letter,) = (await list_all(operator))[0]
    assert letter.HasField("next_attempt_time")
