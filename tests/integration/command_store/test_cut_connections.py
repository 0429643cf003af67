"""Connections of several writers to PostgreSQL are cut at random exchanges of their commits."""

import asyncio
import random
import secrets
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from command_server.kernel.batch import Request
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted
from command_server.kernel.ports import StoreConflict, StoreUnavailable
from tests.support.builders.requests import request
from tests.support.harness.postgres_proxy import PostgresProxy
from tests.support.harness.proxied_writer import make_proxy, run_store, run_writer
from tests.support.ledger.rules.messages import Deposit

ACCOUNTS = "abcd"
CALLERS = 12
DEPOSITS_PER_CUT = 8


async def execute(dice: random.Random, writers: list[GroupCommit], deposit: Request) -> Accepted:
    """Execute a command at any of the writers, until one knows its outcome."""
    while True:
        try:
            outcome = (await dice.choice(writers).execute(deposit)).outcome
        except (StoreConflict, StoreUnavailable):
            continue
        assert isinstance(outcome, Accepted)
        return outcome


async def cut(dice: random.Random, proxies: list[PostgresProxy], cuts: int, is_over: asyncio.Event) -> int:
    """Cut connections, but none after the commands are executed; return their number."""
    for number in range(cuts):
        proxy = dice.choice(proxies)
        proxy.cut(dice.randint(1, 4), is_delivered=dice.random() < 0.5)
        before = proxy.cuts
        while proxy.cuts == before:
            if is_over.is_set():
                return number
            await asyncio.sleep(0.002)
    return cuts


@pytest.mark.parametrize("cuts", [8, pytest.param(60, marks=pytest.mark.long)])
async def test_each_command_has_one_effect_and_one_answer_however_often_connections_are_cut(
    database_url: str, cuts: int
) -> None:
    print(f"seed {(seed := secrets.randbits(32))}")
    dice = random.Random(seed)
    proxies = [make_proxy(database_url) for _ in range(2)]
    deposits = [
        request(Deposit(dice.choice(ACCOUNTS), dice.randint(1, 9))) for _ in range(cuts * DEPOSITS_PER_CUT)
    ]
    outcomes: dict[str, Accepted] = {}
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(run_store(database_url, proxy)) for proxy in proxies]
        writers = [await stack.enter_async_context(run_writer(store)) for store in stores]
        remaining, is_over = iter(deposits), asyncio.Event()

        async def call() -> None:
            for deposit in remaining:
                outcomes[deposit.request_id] = await execute(dice, writers, deposit)

        cutting = asyncio.create_task(cut(dice, proxies, cuts, is_over))
        await asyncio.gather(*(call() for _ in range(CALLERS)))
        is_over.set()
        assert await cutting
        for proxy in proxies:
            proxy.cut(0, is_delivered=True)  # the past: no further one
        for deposit in dice.sample(deposits, 40):
            assert await execute(dice, writers, deposit) == outcomes[deposit.request_id]
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    events = await connection.fetch("SELECT stream, version FROM events ORDER BY position")
    balances = await connection.fetch("SELECT id, (state ->> 'balance')::int FROM streams")
    await connection.close()
    versions = Counter[str]()
    for stream, version in events:
        versions[stream] += 1
        assert version == versions[stream], "gapless, and in order"
    assert sorted(tuple(row) for row in events) == sorted(
        item for outcome in outcomes.values() for item in outcome.versions.items()
    )
    expected = Counter[str]()
    for deposit in deposits:
        expected[f"ledger.account.{deposit.command.account_id}"] += deposit.command.amount
    assert dict(tuple(row) for row in balances) == expected
