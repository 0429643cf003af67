"""Inputs that share a transaction act as they do one by one, and no instance skips an event."""

import random
import secrets
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest

from process_manager.postgres.store import SagaStore
from tests.support.harness.saga_run import SagaRun
from tests.support.harness.saga_scripts import CLEAR, SAGAS, Script, find_skipped, play


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, *SAGAS)


def differences(expected: dict[str, Any], rows: dict[str, Any]) -> list[Any]:
    return [
        (table, pair)
        for table in expected
        for pair in zip_longest(expected[table], rows[table])
        if pair[0] != pair[1]
    ]


async def clear(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(CLEAR)
    finally:
        await connection.close()


@pytest.mark.parametrize("rounds", [40, pytest.param(600, marks=pytest.mark.long)])
async def test_inputs_grouped_at_random_give_the_rows_that_they_give_one_by_one(
    run: SagaRun, database_url: str, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "process_manager.groups.delivery.log", Mock()
    )  # it would have a line for each parked stream
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")

    def divide(count: int) -> Sequence[int]:
        return sorted({0, count, *(chance.randint(0, count) for _ in range(chance.randint(0, 3)))})

    for _ in range(max(1, rounds // 20)):
        script = Script(chance)
        written = [script.write_round() for _ in range(20)]
        one_by_one = await play(run, written, lambda count: range(count + 1))
        await clear(database_url)
        grouped = await play(run, written, divide)
        for number, (expected, rows) in enumerate(zip(one_by_one, grouped, strict=True)):
            assert differences(expected, rows) == [], f"round {number}"
            assert find_skipped(written[number], rows) == [], f"round {number}"
        await clear(database_url)
