"""Faults planted in indexes, counters, histories and change feeds are found and named."""

from typing import Any

import pytest
from diptych.ordering.v1.types_pb2 import OrderHistoryEntry

from tests.support.harness.redis_faults import key, read_member
from tests.support.harness.verified_system import HISTORIES, ORDERS, System


@pytest.mark.parametrize(
    "index", ["all", "customer/ada", "state/STATE_CANCELLED", "customer_state/ada/STATE_CANCELLED"]
)
async def test_an_index_that_lacks_a_member(system: System, index: str) -> None:
    missing = await read_member(system, "o-2")
    await system.redis.zrem(key("index", index), missing)
    assert await system.find_problems() == [f"{key('index', index)}: {missing} is missing"]


async def test_an_index_with_another_score(system: System) -> None:
    moved = await read_member(system, "o-2")
    await system.redis.zadd(key("index", "all"), {moved: 1})
    assert await system.find_problems() == [f"{key('index', 'all')}: {moved} has score 1.0, expected 0"]


async def test_an_index_with_an_unexpected_member(system: System) -> None:
    other = await read_member(system, "o-2")
    await system.redis.zadd(key("index", "state/STATE_RETURNED"), {other: 0, "0000:o-9": 0})
    assert sorted(await system.find_problems()) == [
        f"{key('index', 'state/STATE_RETURNED')}: unexpected member 0000:o-9",
        f"{key('index', 'state/STATE_RETURNED')}: unexpected member {other}",
    ]


async def test_an_unexpected_index(system: System) -> None:
    await system.redis.zadd(key("index", "customer/eve"), {"0000:o-9": 0})
    assert await system.find_problems() == [f"{key('index', 'customer/eve')}: unexpected member 0000:o-9"]


async def test_an_index_that_is_not_a_sorted_set(system: System) -> None:
    await system.redis.set(key("index", "customer/eve"), "x")
    (problem,) = await system.find_problems()
    assert problem.startswith(f"{key('index', 'customer/eve')}: not a sorted set")


async def test_a_counter_that_is_wrong(system: System) -> None:
    await system.redis.hincrby(key("counters", "customer/ada"), "orders/STATE_CANCELLED", 1)
    assert await system.find_problems() == [
        f"{key('counters', 'customer/ada')}: orders/STATE_CANCELLED is 2, the views contribute 1"
    ]


async def test_an_unexpected_counter_and_unexpected_counters(system: System) -> None:
    await system.redis.hset(key("counters", "customer/ada"), "orders/STATE_HELD", "0")
    await system.redis.hset(key("counters", "customer/eve"), "orders/STATE_HELD", "1")
    assert sorted(await system.find_problems()) == [
        f"{key('counters', 'customer/ada')}: orders/STATE_HELD is 0, the views contribute 0",
        f"{key('counters', 'customer/eve')}: orders/STATE_HELD is 1, the views contribute 0",
    ]


async def test_missing_counters(system: System) -> None:
    await system.redis.delete(key("counters", "customer/bob"))
    problems = await system.find_problems()
    assert f"{key('counters', 'customer/bob')}: orders/STATE_PLACED is 0, the views contribute 2" in problems
    assert len(problems) == 3


async def test_a_view_that_records_other_counted_contributions(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "counted", "[]")
    problems = await system.find_problems()
    assert "view ordering.order o-2: field counted differs from the fold: [] (version 3)" in problems
    assert (
        f"{key('counters', 'customer/ada')}: orders/STATE_CANCELLED is 1, the views contribute 0" in problems
    )


async def test_a_history_that_lacks_an_entry(system: System) -> None:
    await system.redis.hdel(HISTORIES.history("o-2"), "2")
    assert await system.find_problems() == ["history ordering.order_history o-2: entry 2 is missing"]


async def test_a_history_entry_with_another_field(system: System) -> None:
    stored: Any = await system.redis.hget(HISTORIES.history("o-2"), "2")
    entry = OrderHistoryEntry.FromString(stored)
    entry.actor = "mallory"
    await system.redis.hset(HISTORIES.history("o-2"), "2", entry.SerializeToString())
    assert await system.find_problems() == [
        "history ordering.order_history o-2: entry 2: actor is mallory, expected alice"
    ]


async def test_an_unexpected_history_entry(system: System) -> None:
    await system.redis.hset(HISTORIES.history("o-2"), "4", b"")
    await system.redis.hset(HISTORIES.history("o-9"), "1", b"")
    assert await system.find_problems() == [
        "history ordering.order_history o-2: entry 4 has no event",
        "history ordering.order_history o-9: no such aggregate",
    ]


async def test_a_change_feed_that_lacks_a_view(system: System) -> None:
    await system.redis.zrem(key("change_feed", "customer/ada"), "o-2")
    assert await system.find_problems() == [f"{key('change_feed', 'customer/ada')}: o-2 is missing"]


async def test_a_change_feed_with_an_unexpected_view(system: System) -> None:
    await system.redis.zadd(key("change_feed", "customer/ada"), {"o-5": 99})
    assert await system.find_problems() == [f"{key('change_feed', 'customer/ada')}: unexpected member o-5"]
