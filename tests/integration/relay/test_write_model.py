"""Several command servers on one PostgreSQL: no duplicates, no losses, no reordering; roles and locks."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted, Rejection
from command_server.postgres.event_store import PostgresEventStore, session_settings
from command_server.postgres.schema import RELAY_ROLE, SERVICE_ROLE
from runtime.postgres import create_engine
from tests.support.builders.requests import group_commit, request
from tests.support.ledger.rules.messages import Deposit, Transfer

Rows = Callable[[str], Awaitable[list[Any]]]


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[Rows]:
    engine = create_engine(database_url)

    async def query(sql: str) -> list[Any]:
        async with engine.connect() as connection:
            return list(await connection.execute(text(sql)))

    yield query
    await engine.dispose()


@asynccontextmanager
async def servers(database_url: str, count: int) -> AsyncIterator[list[GroupCommit]]:
    stores = [PostgresEventStore(database_url) for _ in range(count)]
    commits = [group_commit(store) for store in stores]
    writers = [asyncio.create_task(commit.run()) for commit in commits]
    yield commits
    for commit in commits:
        commit.close()
    await asyncio.gather(*writers)
    for store in stores:
        await store.close()


async def test_32_writers_on_one_aggregate_leave_a_gapless_stream(database_url: str, rows: Rows) -> None:
    async with servers(database_url, 2) as commits:
        await asyncio.gather(
            *(
                commits[writer % 2].execute(request(Deposit("hot", 1)))
                for writer in range(32)
                for _ in range(10)
            )
        )
    versions = [row[0] for row in await rows("SELECT version FROM events ORDER BY position")]
    assert versions == list(range(1, 321))
    (balance,) = await rows("SELECT state ->> 'balance' FROM streams")
    assert balance == ("320",)


async def test_concurrent_retries_on_all_servers_have_one_effect_and_one_result(
    database_url: str, rows: Rows
) -> None:
    requests = [request(Deposit(f"a-{number % 7}", number + 1)) for number in range(40)]
    async with servers(database_url, 3) as commits:
        results = await asyncio.gather(
            *(commit.execute(retried) for retried in requests for commit in (*commits, *commits))
        )
    for first in range(0, len(results), 6):
        assert len({repr(result) for result in results[first : first + 6]}) == 1
    assert await rows("SELECT count(*) FROM events") == [(40,)]
    assert await rows("SELECT count(*) FROM requests") == [(40,)]


def make_transfer(dice: random.Random, accounts: list[str]) -> Transfer:
    payer, payee = dice.sample(accounts, 2)
    return Transfer(payer, payee, dice.randint(1, 120))


async def test_concurrent_transfers_over_two_servers_keep_the_sum(database_url: str, rows: Rows) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    accounts = [f"a-{number}" for number in range(8)]
    async with servers(database_url, 2) as commits:
        for account in accounts:
            await commits[0].execute(request(Deposit(account, 100)))
        transfers = [request(make_transfer(dice, accounts)) for _ in range(300)]
        results = await asyncio.gather(*(dice.choice(commits).execute(transfer) for transfer in transfers))
    kinds = Counter(type(result.outcome) for result in results)
    assert kinds[Accepted] > 0
    assert kinds[Rejection] > 0
    (total,) = await rows(
        "SELECT sum((state ->> 'balance')::int), min((state ->> 'balance')::int) FROM streams"
    )
    assert total[0] == 800
    assert total[1] >= 0
    gaps = await rows(
        "SELECT stream FROM events GROUP BY stream HAVING max(version) <> count(*) OR min(version) <> 1"
    )
    assert gaps == []


async def test_a_rejected_command_is_recorded_with_caller_and_reason(database_url: str, rows: Rows) -> None:
    async with servers(database_url, 1) as (commit,):
        await commit.execute(request(Transfer("poor", "rich", 9), caller="bob"))
    recorded = await rows("SELECT caller, type, outcome, stream FROM audit")
    assert recorded == [("bob", "acme.ledger.v1.Transfer", "LEDGER_TOO_POOR", "ledger.account.poor")]
    answers = await rows("SELECT caller, type, outcome, rejection ->> 'kind' FROM requests")
    assert answers == [("bob", "acme.ledger.v1.Transfer", "LEDGER_TOO_POOR", "rule")]


async def test_an_event_is_recorded_with_actor_and_command(database_url: str, rows: Rows) -> None:
    deposit = request(Deposit("a", 9), caller="bob")
    async with servers(database_url, 1) as (commit,):
        await commit.execute(deposit)
    (event,) = await rows("SELECT actor, command, request_id, correlation_id, published FROM event_log")
    expected = ("bob", "acme.ledger.v1.Deposit", str(deposit.request_id), "correlation", False)
    assert event == expected


async def test_a_nul_character_fails_its_own_command_only(database_url: str, rows: Rows) -> None:
    async with servers(database_url, 1) as (commit,):
        good, bad = await asyncio.gather(
            commit.execute(request(Deposit("a", 1))),
            commit.execute(request(Deposit("a", 1), caller="a\0b")),
            return_exceptions=True,
        )
    assert isinstance(bad, Exception)
    assert not isinstance(good, BaseException)
    assert await rows("SELECT count(*) FROM events") == [(1,)]


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (SERVICE_ROLE, "UPDATE events SET type = 'other'"),
        (SERVICE_ROLE, "DELETE FROM events"),
        (SERVICE_ROLE, "DELETE FROM requests"),
        (SERVICE_ROLE, "UPDATE requests SET outcome = 'ACCEPTED'"),
        (SERVICE_ROLE, "DELETE FROM refused_calls"),
        (SERVICE_ROLE, "DELETE FROM audit"),
        (SERVICE_ROLE, "UPDATE audit SET outcome = 'ACCEPTED'"),
        (SERVICE_ROLE, "SELECT drop_month('audit', '2026-01-01')"),
        (SERVICE_ROLE, "UPDATE outbox SET sequence = 1"),
        (RELAY_ROLE, "INSERT INTO events (stream) VALUES ('x')"),
        (RELAY_ROLE, "UPDATE streams SET version = 0"),
    ],
)
async def test_a_role_lacks_the_permissions_that_its_process_does_not_need(
    database_url: str, role: str, statement: str
) -> None:
    engine = create_engine(database_url, session=session_settings(role))
    try:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match="permission denied"):
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


async def test_a_frozen_servers_locks_are_bounded(database_url: str) -> None:
    """A writer that freezes within its transaction blocks the others for about a second."""
    frozen = PostgresEventStore(database_url)
    async with servers(database_url, 1) as (commit,):
        await commit.execute(request(Deposit("a", 1)))
        async with asyncio.timeout(30):
            with pytest.raises(Exception, match=r"."):
                async with frozen.begin() as transaction:
                    await transaction.lock_and_find(["ledger.account.a"], [])
                    await commit.execute(request(Deposit("a", 1)))  # succeeds despite the frozen writer
                    await transaction.read_events({"ledger.account.a": 0})
    await frozen.close()
