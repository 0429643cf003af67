"""A generation of a projection from its build to its end, by the command line."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from devstack.stack import Stack
from runtime.postgres import create_engine
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import installed
from tests.support.ledger.projections import CHEQUE

WHY = ("--reason", "a test")


@pytest.fixture(autouse=True)
def ledger() -> Iterator[None]:
    with installed(contexts=""):
        yield


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(stack.settings.redis_url) as redis:
        yield redis


async def projections(stack: Stack, command: str, *more: str) -> tuple[int, str]:
    code, out, err = await diptych(stack, "projections", command, "ledger.cheque", *more)
    return code, out + err


async def test_a_generation_is_built_compared_switched_to_rolled_back_and_pruned(
    stack: Stack, clerk: Clerk, redis: Redis
) -> None:
    receipt = await clerk.write(cheque_of("generation"))
    cheque_id = receipt.aggregate_id
    before = await clerk.get(cheque_id, receipt.consistency_token)
    code, out = await projections(stack, "rebuild", *WHY)
    assert (code, out.partition(" is ready after ")[0]) == (0, "generation 2.1 of ledger.cheque")
    code, out = await projections(stack, "rebuild", *WHY)
    assert (code, out.startswith("Error: GENERATION_EXISTS: ")) == (1, True), out
    code, out = await projections(stack, "compare")
    assert (code, "no differences between generations 2 and 2.1" in out) == (0, True), out

    new = CHEQUE.at("2.1")
    changed: Any = CHEQUE.message()
    changed.CopyFrom(before)
    changed.account_id = "another"
    await redis.hset(new.key(cheque_id), "data", changed.SerializeToString())
    code, out = await projections(stack, "compare", "--json")
    report = json.loads(out)
    example = {"id": cheque_id, "serving_value": "generation", "value": "another"}
    assert code == 1
    assert report["differences"] == [{"field": "account_id", "count": 1, "examples": [example]}]
    code, out = await projections(stack, "switch", *WHY)
    assert (code, out.startswith("Error: DIFFERENCES_NOT_ACCEPTED: ")) == (1, True), out
    assert "account_id (1)" in out
    assert await clerk.get(cheque_id) == before

    code, out = await projections(stack, "switch", "--accept", "account_id", *WHY)
    assert (code, out.splitlines()[-1]) == (0, "ledger.cheque is served from generation 2.1")
    assert await clerk.get(cheque_id) == changed
    assert (await projections(stack, "prune", "2.1", *WHY))[1].startswith("Error: GENERATION_SERVES: ")
    code, out = await projections(stack, "list")
    assert out.splitlines()[1].split() == ["2.1", "serves"], out
    assert out.splitlines()[2].split()[:4] == ["2", "ready,", "served", "until"], out

    token = (await clerk.endorse(cheque_id)).consistency_token
    assert (await clerk.get(cheque_id, token)).version == 2
    await until(lambda: is_at(redis, CHEQUE.key(cheque_id), 2))  # it is kept up to date
    code, out = await projections(stack, "rollback", *WHY)
    assert (code, out) == (0, "ledger.cheque is served from generation 2 again\n")
    assert (await clerk.get(cheque_id, token)).account_id == "generation"
    code, out = await projections(stack, "prune", "2.1", *WHY)
    assert (code, out.startswith("generation 2.1 of ledger.cheque is deleted, ")) == (0, True), out
    assert await projections(stack, "rollback", *WHY) != (0, "")
    report_after = await verify_stack(stack)
    assert report_after.clean, report_after.to_text()
    assert await read_switches(stack) == [("2", "2.1", "account_id"), ("2.1", "2", None)]
    assert not [key async for key in redis.scan_iter(match="*:ledger.cheque:2.1*", count=10_000)]


async def is_at(redis: Redis, key: str, version: int) -> bool:
    return await redis.hget(key, "version") == str(version).encode()


async def read_switches(stack: Stack) -> list[Any]:
    """Return the switches on record: from, to, and the first field that differed."""
    engine = create_engine(stack.settings.database_url)
    field = "comparison->'differences'->0->>'field'"
    query = f"SELECT from_generation, to_generation, {field} FROM projection_switches ORDER BY number"
    async with engine.connect() as connection:
        rows = (await connection.execute(text(query))).all()
    await engine.dispose()
    return [tuple(row) for row in rows]
