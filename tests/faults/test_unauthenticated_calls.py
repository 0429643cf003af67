"""A flood of calls without a valid token: few rows, and the callers with a token go on."""

import asyncio
from typing import Any

import asyncpg
import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from runtime.grpc.refused_call_counts import MAX_RECORDS
from tests.support.harness.invariants import verify_stack
from tests.support.harness.load_caller import run_caller
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long
SECONDS = 2.5
HONEST_CALLS, FLOOD_CALLS = 8, 64
MIN_REFUSED = 100
"""Unauthenticated calls of a flood that is one, on a busy machine too."""


@pytest.mark.parametrize(("kind", "process"), [("write", COMMAND_SERVER), ("read", QUERY_SERVER)])
async def test_a_flood_without_tokens_costs_few_rows_and_slows_nobody(
    stack: Stack, kind: str, process: Any
) -> None:
    address = stack.of(process)[0].address
    token = stack.token("ledger.write", "ledger.read", subject="ada")
    since = await fetch_value(stack, "SELECT clock_timestamp()")
    alone = await run_caller(kind, address, token, HONEST_CALLS, SECONDS)
    flood, beside = await asyncio.gather(
        run_caller(kind, address, forge(token), FLOOD_CALLS, SECONDS, obeys=False),
        run_caller(kind, address, token, HONEST_CALLS, SECONDS),
    )
    rate, ratio = flood["UNAUTHENTICATED"] / SECONDS, beside["OK"] / alone["OK"]
    print(f"{kind}: alone {alone['OK'] / SECONDS:.0f}/s; flood {rate:.0f}/s; others {ratio:.2f} of theirs")
    rows = await fetch_value(stack, "SELECT count(*) FROM refused_calls WHERE recorded_at > $1", since)
    print(f"{kind}: {rows} rows")
    assert beside.keys() == {"OK"}
    assert flood.keys() <= {"UNAUTHENTICATED"}
    assert flood.total() > MIN_REFUSED
    assert rows <= MAX_RECORDS
    if process is COMMAND_SERVER:
        await until(lambda: is_recorded(stack, since), 5)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


def forge(token: str) -> str:
    """Return a token whose signature is not that of its key."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'A' * 10}{signature[10:]}"


async def is_recorded(stack: Stack, since: object) -> bool:
    query = "SELECT count(*) FROM refused_calls WHERE recorded_at > $1 AND details ->> 'cause' = 'FORGED'"
    return bool(await fetch_value(stack, query, since))


async def fetch_value(stack: Stack, query: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()
