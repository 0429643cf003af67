"""Faults planted in views are found and named."""

import json
from typing import Any

import pytest
from diptych.ordering.v1.types_pb2 import Order

from tests.support.harness.verified_system import HISTORIES, ORDERS, System


async def test_an_order_with_one_field_changed(system: System) -> None:
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    assert await system.find_problems() == [
        "view ordering.order o-2: state is STATE_PLACED, expected STATE_CANCELLED (version 3)"
    ]


async def test_a_history_with_one_field_changed(system: System) -> None:
    await system.change_view(HISTORIES, "o-2", order_id="o-3")
    assert await system.find_problems() == [
        "view ordering.order_history o-2: order_id is o-3, expected o-2 (version 3)"
    ]


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_missing_view(system: System, view: Any) -> None:
    await system.redis.delete(view.key("o-2"))
    problems = await system.find_problems()
    assert f"view {view.projection} o-2: missing in Redis, version 3 in PostgreSQL" in problems


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_view_without_an_aggregate(system: System, view: Any) -> None:
    await system.redis.copy(view.key("o-2"), view.key("o-9"))
    assert await system.find_problems() == [f"view {view.projection} o-9: no such aggregate"]


async def test_a_view_that_is_behind(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "version", "2")
    assert "view ordering.order o-2: version 2 in Redis, 3 in PostgreSQL" in await system.find_problems()


async def test_a_view_that_is_ahead(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "version", "4")
    assert await system.find_problems() == ["view ordering.order o-2: version 4 in Redis, 3 in PostgreSQL"]


@pytest.mark.parametrize("column", ["state", "customer_id", "total", "place_time"])
async def test_a_column_with_another_value(system: System, column: str) -> None:
    await system.redis.hset(ORDERS.key("o-2"), column, "x")
    (problem,) = await system.find_problems()
    assert problem.startswith(f"view ordering.order o-2: column {column} is 'x', expected ")


@pytest.mark.parametrize("name", ["entries", "contributions"])
async def test_a_view_that_records_other_entries(system: System, name: str) -> None:
    await system.redis.hset(ORDERS.key("o-2"), name, '[["x","y"]]')
    assert await system.find_problems() == [
        f'view ordering.order o-2: field {name} differs from the fold: [["x","y"]] (version 3)'
    ]


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_parked_aggregate(system: System, view: Any) -> None:
    record = {"version": 3, "error": "UnknownEvent: x", "state": "parked"}
    await system.redis.hset(view.key("o-2"), mapping={"parked": json.dumps(record)})
    assert await system.find_problems() == [
        f"view {view.projection} o-2: parked at version 3: UnknownEvent: x"
    ]


async def test_an_aggregate_that_is_only_listed_as_parked(system: System) -> None:
    await system.redis.hset(ORDERS.parked, "o-2", "{}")
    assert await system.find_problems(within=0.5) == [
        "projection ordering.order: o-2 is listed as parked, but its view is not"
    ]
