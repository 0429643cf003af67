"""Each fault that can be planted into views is found and named."""

import json
from typing import Any

import pytest
from diptych.ordering.v1.types_pb2 import Order

from tests.support.harness.verified_system import HISTORIES, ORDERS, System


async def test_an_order_with_one_field_changed(system: System) -> None:
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    assert await system.found() == [
        "view ordering.order o-2: state is STATE_PLACED, the fold says STATE_CANCELLED at version 3"
    ]


async def test_a_history_with_one_field_changed(system: System) -> None:
    await system.change_view(HISTORIES, "o-2", order_id="o-3")
    assert await system.found() == [
        "view ordering.order_history o-2: order_id is o-3, the fold says o-2 at version 3"
    ]


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_missing_view(system: System, view: Any) -> None:
    await system.redis.delete(view.key("o-2"))
    found = await system.found()
    assert f"view {view.projection} o-2: it is missing, the aggregate is at version 3" in found


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_view_too_many(system: System, view: Any) -> None:
    await system.redis.copy(view.key("o-2"), view.key("o-9"))
    assert await system.found() == [f"view {view.projection} o-9: there is no such aggregate"]


async def test_a_view_that_has_stayed_behind(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "version", "2")
    assert "view ordering.order o-2: it is at version 2, the aggregate at 3" in await system.found()


async def test_a_view_that_is_ahead(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "version", "4")
    assert await system.found() == ["view ordering.order o-2: it is at version 4, the aggregate at 3"]


@pytest.mark.parametrize("column", ["state", "customer_id", "total", "place_time"])
async def test_a_column_that_shows_something_else(system: System, column: str) -> None:
    await system.redis.hset(ORDERS.key("o-2"), column, "x")
    (found,) = await system.found()
    assert found.startswith(f"view ordering.order o-2: column {column} shows 'x', the fold says ")


@pytest.mark.parametrize("name", ["entries", "contributions"])
async def test_a_view_that_remembers_other_entries(system: System, name: str) -> None:
    await system.redis.hset(ORDERS.key("o-2"), name, '[["x","y"]]')
    assert await system.found() == [
        f'view ordering.order o-2: {name} is [["x","y"]], not what the fold says at version 3'
    ]


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_parked_aggregate(system: System, view: Any) -> None:
    record = {"version": 3, "error": "UnknownEvent: x", "state": "parked"}
    await system.redis.hset(view.key("o-2"), mapping={"parked": json.dumps(record)})
    assert await system.found() == [f"view {view.projection} o-2: it is parked at version 3: UnknownEvent: x"]


async def test_an_aggregate_that_is_only_listed_as_parked(system: System) -> None:
    await system.redis.hset(ORDERS.parked, "o-2", "{}")
    assert await system.found(within=0.5) == [
        "projection ordering.order: o-2 is listed as parked, and is not"
    ]
