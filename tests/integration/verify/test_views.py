"""Faults planted in views are found and named."""

import json
from typing import Any

import pytest

from tests.support.harness.verified_system import CHEQUE, HISTORY, System
from tests.support.ledger.stubs import types


async def test_a_view_with_one_field_changed(system: System) -> None:
    await system.change_view(CHEQUE, "c-2", state=types.Cheque.STATE_WRITTEN)
    assert await system.find_problems() == [
        "view ledger.cheque c-2: state is STATE_WRITTEN, expected STATE_VOIDED (version 3)"
    ]


async def test_a_history_with_one_field_changed(system: System) -> None:
    await system.change_view(HISTORY, "c-2", cheque_id="c-3")
    assert await system.find_problems() == [
        "view ledger.cheque_history c-2: cheque_id is c-3, expected c-2 (version 3)"
    ]


@pytest.mark.parametrize("view", [CHEQUE, HISTORY], ids=["cheque", "history"])
async def test_a_missing_view(system: System, view: Any) -> None:
    await system.redis.delete(view.key("c-2"))
    problems = await system.find_problems()
    assert f"view {view.projection} c-2: missing in Redis, version 3 in PostgreSQL" in problems


@pytest.mark.parametrize("view", [CHEQUE, HISTORY], ids=["cheque", "history"])
async def test_a_view_without_an_aggregate(system: System, view: Any) -> None:
    await system.redis.copy(view.key("c-2"), view.key("c-9"))
    assert await system.find_problems() == [f"view {view.projection} c-9: no such aggregate"]


async def test_a_view_that_is_behind(system: System) -> None:
    await system.redis.hset(CHEQUE.key("c-2"), "version", "2")
    assert "view ledger.cheque c-2: version 2 in Redis, 3 in PostgreSQL" in await system.find_problems()


async def test_a_view_that_is_ahead(system: System) -> None:
    await system.redis.hset(CHEQUE.key("c-2"), "version", "4")
    assert await system.find_problems() == ["view ledger.cheque c-2: version 4 in Redis, 3 in PostgreSQL"]


@pytest.mark.parametrize("column", ["state", "account_id", "amount", "write_time"])
async def test_a_column_with_another_value(system: System, column: str) -> None:
    await system.redis.hset(CHEQUE.key("c-2"), column, "x")
    (problem,) = await system.find_problems()
    assert problem.startswith(f"view ledger.cheque c-2: column {column} is 'x', expected ")


async def test_a_view_with_another_owner(system: System) -> None:
    await system.redis.hdel(CHEQUE.key("c-2"), "owner")  # as views of earlier releases
    assert await system.find_problems() == []
    await system.redis.hset(CHEQUE.key("c-2"), "owner", "mallory")
    (problem,) = await system.find_problems()
    assert problem.startswith("view ledger.cheque c-2: owner is 'mallory', expected 'a-")


@pytest.mark.parametrize("name", ["entries", "contributions"])
async def test_a_view_that_records_other_entries(system: System, name: str) -> None:
    await system.redis.hset(CHEQUE.key("c-2"), name, '[["x","y"]]')
    assert await system.find_problems() == [
        f'view ledger.cheque c-2: field {name} differs from the fold: [["x","y"]] (version 3)'
    ]


@pytest.mark.parametrize("view", [CHEQUE, HISTORY], ids=["cheque", "history"])
async def test_a_parked_aggregate(system: System, view: Any) -> None:
    record = {"version": 3, "error": "UnknownEvent: x", "state": "parked"}
    await system.redis.hset(view.key("c-2"), mapping={"parked": json.dumps(record)})
    assert await system.find_problems() == [
        f"view {view.projection} c-2: parked at version 3: UnknownEvent: x"
    ]


async def test_an_aggregate_that_is_only_listed_as_parked(system: System) -> None:
    await system.redis.hset(CHEQUE.parked, "c-2", "{}")
    assert await system.find_problems(within=0.5) == [
        "projection ledger.cheque: c-2 is listed as parked, but its view is not"
    ]
