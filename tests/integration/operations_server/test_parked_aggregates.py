"""Parked aggregates over the API: pages in order, filters, and retries that are on record."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.parked_pb2 import ParkedAggregate
from redis.asyncio import Redis

from contracts.view_layout import View
from devstack.stack import Stack
from operations.projections import list_views
from projector.records import Parked
from tests.support.harness.caller import Caller

ORDERS = "ordering.order"
NOW = 1_767_323_045_678
"""Milliseconds since 1970."""
ACTS = """
SELECT subject, act, target, reason, outcome, request::text, duration_us FROM operator_acts ORDER BY number
"""


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(stack.settings.redis_url) as redis:
        yield redis


def find_view(stack: Stack, name: str = ORDERS) -> View:
    (view,) = [view for view in list_views(stack.settings) if view.projection == name]
    return view


async def park(redis: Redis, view: View, id_: str, since: int, error: str = "out of paper") -> None:
    """Park an aggregate as a projector does."""
    parked = Parked(f"{view.source_streams[0]}.{id_}", 3, error, since, 5, None, "parked", stale_since=since)
    record = msgspec.json.encode(parked)
    await redis.hset(view.key(id_), mapping={"version": 2, "revision": 1, "entries": "[]", "parked": record})
    await redis.hset(view.parked, id_, record)
    await redis.zadd(view.parked_since, {id_: since})


async def list_all(operator: Caller, **filters: Any) -> tuple[list[ParkedAggregate], int]:
    """Return the entries of all pages, and the number of pages."""
    entries: list[ParkedAggregate] = []
    pages, token = 0, ""
    while pages == 0 or token:
        request = protocol.ListParkedAggregatesRequest(page_token=token, **filters)
        page = await operator.query(request)
        entries += page.aggregates
        pages, token = pages + 1, page.next_page_token
    return entries, pages


async def test_pages_list_the_longest_waiting_first_over_all_projections(
    stack: Stack, operator: Caller, redis: Redis
) -> None:
    """Many have the same time, and the last entry of a page goes before the next page is read."""
    names = [ORDERS, "ordering.order_history", "banking.account"]
    for number in range(450):
        since = NOW + (number // 90) * 1000
        await park(redis, find_view(stack, names[number % 3]), f"o-{number:04}", since)
    entries, pages = await list_all(operator, page_size=200)
    keys = [(each.since.ToMilliseconds(), each.projection, each.id) for each in entries]
    assert (len(keys), len(set(keys)), pages) == (450, 450, 3)
    assert keys == sorted(keys)
    first = await operator.query(protocol.ListParkedAggregatesRequest(page_size=100))
    gone = first.aggregates[-1]  # the one that the token names
    view = find_view(stack, gone.projection)
    await redis.hdel(view.parked, gone.id)
    await redis.zrem(view.parked_since, gone.id)
    second = await operator.query(
        protocol.ListParkedAggregatesRequest(page_size=100, page_token=first.next_page_token)
    )
    assert [each.id for each in second.aggregates] == [each.id for each in entries[100:200]]


async def test_filters_select_entries(stack: Stack, operator: Caller, redis: Redis) -> None:
    view = find_view(stack)
    for number in range(30):
        await park(
            redis, view, f"o-{number}", NOW + number, "out of ink" if number % 10 == 0 else "out of paper"
        )
    await park(redis, find_view(stack, "banking.account"), "o-7", NOW)
    assert {each.id for each in (await list_all(operator, error="ink"))[0]} == {"o-0", "o-10", "o-20"}
    assert len((await list_all(operator, projection=ORDERS))[0]) == 30
    found, _ = await list_all(operator, id="o-7")
    assert {each.projection for each in found} == {ORDERS, "banking.account"}
    (entry,) = [each for each in found if each.projection == ORDERS]
    assert (entry.stream, entry.version, entry.error, entry.attempts) == (
        "ordering.order.o-7",
        3,
        "out of paper",
        5,
    )
    assert not entry.HasField("next_attempt_time")


async def test_a_record_that_cannot_be_read_hides_no_other(
    stack: Stack, operator: Caller, redis: Redis
) -> None:
    view = find_view(stack)
    await park(redis, view, "o-1", NOW)
    await redis.hset(view.parked, "o-2", b"\xff")
    await redis.zadd(view.parked_since, {"o-2": 0, "o-3": 5})  # o-3 is not parked any more
    entries, _ = await list_all(operator)
    assert [each.id for each in entries] == ["o-2", "o-1"]
    assert "cannot be read" in entries[0].error


async def begin_build(redis: Redis, view: View) -> None:
    """Begin a build, as a projector does."""
    await redis.set(view.build, "incarnation/build")
    await redis.hset(view.checkpoints, mapping={str(number): "epoch/0" for number in range(16)})


async def test_a_retry_makes_aggregates_due_and_is_on_record(
    stack: Stack, operator: Caller, redis: Redis
) -> None:
    view = find_view(stack)
    await begin_build(redis, view)
    for number in range(200):
        await park(redis, view, f"o-{number}", NOW)
    request = protocol.RetryParkedAggregatesRequest(projection=ORDERS, ids=["o-1", "o-2"], reason="mended")
    assert (await operator.query(request)).retried == 2
    (entry,) = (await list_all(operator, id="o-1"))[0]
    assert (entry.attempts, entry.HasField("next_attempt_time")) == (0, True)
    request = protocol.RetryParkedAggregatesRequest(projection=ORDERS, reason="all of them")
    assert (await operator.query(request)).retried == 200
    for refused, reason in (
        (protocol.RetryParkedAggregatesRequest(projection="x.y", reason="r"), "PROJECTION_UNKNOWN"),
        (
            protocol.RetryParkedAggregatesRequest(projection=ORDERS, ids=["none"], reason="r"),
            "AGGREGATE_UNKNOWN",
        ),
        (
            protocol.RetryParkedAggregatesRequest(projection="banking.account", reason="r"),
            "RETRY_NOT_POSSIBLE",
        ),
        *(
            (protocol.RetryParkedAggregatesRequest(projection=ORDERS, reason=reason), "REQUEST_INVALID")
            for reason in ("", " \u00a0 ", "two\nlines")
        ),
    ):
        assert await operator.rejection_reason(refused) == reason
    connection = await asyncpg.connect(stack.settings.database_url)
    acts = await connection.fetch(ACTS)
    await connection.close()
    assert [tuple(act)[:5] for act in acts] == [
        ("alice", "RetryParkedAggregates", f"{ORDERS}: o-1, o-2", "mended", "DONE"),
        ("alice", "RetryParkedAggregates", f"{ORDERS}: all", "all of them", "DONE"),
        ("alice", "RetryParkedAggregates", "x.y: all", "r", "PROJECTION_UNKNOWN"),
        ("alice", "RetryParkedAggregates", f"{ORDERS}: none", "r", "AGGREGATE_UNKNOWN"),
        ("alice", "RetryParkedAggregates", "banking.account: all", "r", "RETRY_NOT_POSSIBLE"),
    ]
    assert json.loads(acts[0]["request"]) == {
        "projection": ORDERS,
        "ids": ["o-1", "o-2"],
        "reason": "mended",
    }
    assert all(act["duration_us"] > 0 for act in acts)


async def test_no_act_is_done_that_cannot_be_recorded(stack: Stack, operator: Caller, redis: Redis) -> None:
    view = find_view(stack)
    await begin_build(redis, view)
    await park(redis, view, "o-1", NOW)
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute("ALTER TABLE operator_acts RENAME TO away")
    try:
        request = protocol.RetryParkedAggregatesRequest(projection=ORDERS, reason="mended")
        assert await operator.rejection_reason(request) == "WRITE_MODEL_UNAVAILABLE"
        (entry,) = (await list_all(operator))[0]
        assert entry.attempts == 5
    finally:
        await connection.execute("ALTER TABLE away RENAME TO operator_acts")
        await connection.close()
