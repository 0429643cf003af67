"""Each fault that can be planted into what lies beside the views is found and named."""

from typing import Any

import pytest
from diptych.ordering.v1.types_pb2 import OrderHistoryEntry

from tests.support.harness.redis_faults import key, member
from tests.support.harness.verified_system import HISTORIES, ORDERS, System


@pytest.mark.parametrize(
    "index", ["all", "customer/ada", "state/STATE_CANCELLED", "customer_state/ada/STATE_CANCELLED"]
)
async def test_an_index_that_lacks_a_member(system: System, index: str) -> None:
    gone = await member(system, "o-2")
    await system.redis.zrem(key("index", index), gone)
    assert await system.found() == [f"{key('index', index)}: {gone} is not in it"]


async def test_an_index_with_another_score(system: System) -> None:
    moved = await member(system, "o-2")
    await system.redis.zadd(key("index", "all"), {moved: 1})
    assert await system.found() == [f"{key('index', 'all')}: {moved} has the score 1.0"]


async def test_an_index_with_a_member_too_many(system: System) -> None:
    other = await member(system, "o-2")
    await system.redis.zadd(key("index", "state/STATE_RETURNED"), {other: 0, "0000:o-9": 0})
    assert sorted(await system.found()) == [
        f"{key('index', 'state/STATE_RETURNED')}: it has 0000:o-9, which no view demands",
        f"{key('index', 'state/STATE_RETURNED')}: it has {other}, which no view demands",
    ]


async def test_an_index_too_many(system: System) -> None:
    await system.redis.zadd(key("index", "customer/eve"), {"0000:o-9": 0})
    assert await system.found() == [f"{key('index', 'customer/eve')}: it has 0000:o-9, which no view demands"]


async def test_an_index_that_is_no_sorted_set(system: System) -> None:
    await system.redis.set(key("index", "customer/eve"), "x")
    (found,) = await system.found()
    assert found.startswith(f"{key('index', 'customer/eve')}: it is no sorted set")


async def test_a_counter_that_is_wrong(system: System) -> None:
    await system.redis.hincrby(key("counters", "customer/ada"), "orders/STATE_CANCELLED", 1)
    assert await system.found() == [
        f"{key('counters', 'customer/ada')}: orders/STATE_CANCELLED is 2, the views have added 1"
    ]


async def test_a_counter_too_many_and_a_total_too_many(system: System) -> None:
    await system.redis.hset(key("counters", "customer/ada"), "orders/STATE_HELD", "0")
    await system.redis.hset(key("counters", "customer/eve"), "orders/STATE_HELD", "1")
    assert sorted(await system.found()) == [
        f"{key('counters', 'customer/ada')}: orders/STATE_HELD is 0, the views have added 0",
        f"{key('counters', 'customer/eve')}: orders/STATE_HELD is 1, the views have added 0",
    ]


async def test_a_missing_total(system: System) -> None:
    await system.redis.delete(key("counters", "customer/bob"))
    found = await system.found()
    assert f"{key('counters', 'customer/bob')}: orders/STATE_PLACED is 0, the views have added 2" in found
    assert len(found) == 3


async def test_a_counter_that_does_not_hold_what_the_view_adds(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "counted", "[]")
    found = await system.found()
    assert "view ordering.order o-2: added is [], not what the fold says at version 3" in found
    assert f"{key('counters', 'customer/ada')}: orders/STATE_CANCELLED is 1, the views have added 0" in found


async def test_a_history_that_lacks_an_entry(system: System) -> None:
    await system.redis.hdel(HISTORIES.history("o-2"), "2")
    assert await system.found() == ["log ordering.order_history o-2: it has no entry 2"]


async def test_a_history_entry_that_tells_something_else(system: System) -> None:
    stored: Any = await system.redis.hget(HISTORIES.history("o-2"), "2")
    entry = OrderHistoryEntry.FromString(stored)
    entry.actor = "mallory"
    await system.redis.hset(HISTORIES.history("o-2"), "2", entry.SerializeToString())
    assert await system.found() == [
        "log ordering.order_history o-2: in entry 2, actor is mallory, the fold says alice"
    ]


async def test_a_history_entry_too_many(system: System) -> None:
    await system.redis.hset(HISTORIES.history("o-2"), "4", b"")
    await system.redis.hset(HISTORIES.history("o-9"), "1", b"")
    assert await system.found() == [
        "log ordering.order_history o-2: it has an entry 4, which no event is behind",
        "log ordering.order_history o-9: there is no such aggregate",
    ]


async def test_an_order_that_its_customers_changes_do_not_name(system: System) -> None:
    await system.redis.zrem(key("change_feed", "customer/ada"), "o-2")
    assert await system.found() == [f"set of {key('change_feed', 'customer/ada')}: o-2 is not in it"]


async def test_changes_that_name_an_order_too_many(system: System) -> None:
    await system.redis.zadd(key("change_feed", "customer/ada"), {"o-5": 99})
    assert await system.found() == [
        f"set of {key('change_feed', 'customer/ada')}: it has o-5, which no view demands"
    ]
