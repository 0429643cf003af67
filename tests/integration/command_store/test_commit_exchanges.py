"""A commit takes two exchanges with PostgreSQL, and whichever is lost, its commands have one effect."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from command_server.kernel.batch import Request
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted
from command_server.kernel.ports import (
    Changes,
    EventRow,
    RequestLookup,
    RequestRow,
    StoreConflict,
    StreamRow,
)
from command_server.postgres.event_store import PostgresEventStore
from command_server.postgres.pipelined_connection import PipelinedConnection, connect_pipelined
from tests.support.builders.requests import request
from tests.support.harness.certificates import write_certificate
from tests.support.harness.postgres_proxy import PostgresProxy
from tests.support.harness.proxied_writer import make_proxy, run_store, run_writer
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import CashCheque, Deposit, WriteCheque

VERSIONS = "SELECT array_agg(version ORDER BY version) FROM events WHERE stream = $1"
COUNT = "SELECT count(*) FROM requests WHERE request_id = $1"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
EVENT = EventRow("a.b.1", 1, "t.Event", b"1", "{}", datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
async def observer(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def proxy(database_url: str) -> PostgresProxy:
    return make_proxy(database_url)


@asynccontextmanager
async def running(
    database_url: str, proxy: PostgresProxy, certificate: Path | None = None
) -> AsyncIterator[GroupCommit]:
    """Run a writer whose connections lead through the proxy, and are open."""
    async with run_store(database_url, proxy, certificate) as store, run_writer(store) as commits:
        await commits.execute(request(WriteCheque("first", "a", 1)))
        await commits.execute(request(CashCheque("first")))
        yield commits


async def count_exchanges(proxy: PostgresProxy, commits: GroupCommit, commands: list[Request]) -> float:
    """Return the median of the exchanges of the commands, one after the other."""
    counts = []
    for command in commands:
        before = proxy.exchanges
        await commits.execute(command)
        counts.append(proxy.exchanges - before)
    return median(counts)


async def test_a_commit_takes_two_exchanges(database_url: str, proxy: PostgresProxy) -> None:
    """A lock that another process delays takes one more, hence the median."""
    deposits = [request(Deposit(account, 1)) for account in "aabcdefghi"]
    cheques = [request(WriteCheque(f"c-{number}", "a", 1)) for number in range(5)]
    async with running(database_url, proxy) as commits:
        assert await count_exchanges(proxy, commits, deposits) == 2
        assert await count_exchanges(proxy, commits, deposits) == 2, "a repetition is read and rolled back"
        assert await count_exchanges(proxy, commits, cheques) == 3, "the first states name other streams"


@pytest.mark.parametrize("uses_tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("exchange", [1, 2])
@pytest.mark.parametrize("is_delivered", [False, True], ids=["cut before it", "answer lost"])
async def test_a_lost_exchange_has_one_effect_and_one_answer(
    database_url: str,
    observer: "asyncpg.Connection[Any]",
    tmp_path: Path,
    exchange: int,
    is_delivered: bool,
    uses_tls: bool,
) -> None:
    certificate = write_certificate(tmp_path / "postgres.pem") if uses_tls else None
    proxy = make_proxy(database_url, certificate)
    async with running(database_url, proxy, certificate) as commits:
        for account in ("a", "new"):
            deposit, stream = request(Deposit(account, 5)), f"ledger.account.{account}"
            cuts = proxy.cuts
            proxy.cut(exchange, is_delivered=is_delivered)
            result = await commits.execute(deposit)
            assert proxy.cuts == cuts + 1
            assert isinstance(result.outcome, Accepted)
            assert await commits.execute(deposit) == result
            versions = await observer.fetchval(VERSIONS, stream)
            assert versions == list(range(1, result.outcome.versions[stream] + 1))
            assert await observer.fetchval(COUNT, deposit.request_id) == 1


async def test_a_transaction_that_lost_its_second_exchange_holds_no_locks(
    database_url: str, proxy: PostgresProxy
) -> None:
    other = PostgresEventStore(database_url)
    async with running(database_url, proxy) as commits:
        proxy.cut(2, is_delivered=False)
        await commits.execute(request(Deposit("a", 1)))
        async with asyncio.timeout(10), other.begin() as transaction:
            streams, _ = await transaction.lock_and_find(["ledger.account.a"], [])
    assert streams
    await other.close()


async def test_a_request_that_the_holder_of_a_lock_records_is_found_after_the_wait(
    database_url: str, observer: "asyncpg.Connection[Any]"
) -> None:
    store, late = PostgresEventStore(database_url), PostgresEventStore(database_url)
    stream = StreamRow("a.b.1", "a.b", 1, EVENT.recorded_at, "{}", "print", is_new=True)
    async with store.begin() as transaction:
        await transaction.commit(Changes([stream], [EVENT]))
    key, outcome = ("alice", str(uuid4())), Accepted({"a.b.1": 1}, EVENT.recorded_at)
    row = RequestRow(*key, "t.Do", b"#", outcome, "a.b.1", None, "c", None, None, 7, EVENT.recorded_at)

    async def look_up() -> RequestLookup:
        async with late.begin() as transaction:
            return (await transaction.lock_and_find(["a.b.1"], [key]))[1]

    async def is_waiting() -> bool:
        return bool(await observer.fetchval(WAITING))

    async with store.begin() as transaction:
        await transaction.lock_and_find(["a.b.1"], [])
        waiting = asyncio.create_task(look_up())
        await until(is_waiting)
        await transaction.commit(Changes(requests=[row]))
    assert key in (await waiting).requests
    await store.close()
    await late.close()


async def test_a_commit_that_fails_at_its_end_is_no_success(
    database_url: str, observer: "asyncpg.Connection[Any]"
) -> None:
    await observer.execute("""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE unique_violation; END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION fail();
    """)
    store = PostgresEventStore(database_url)
    with pytest.raises(StoreConflict):
        async with store.begin() as transaction:
            await transaction.lock_and_find([EVENT.stream], [])
            await transaction.commit(Changes(events=[EVENT]))
    await observer.execute("DROP TRIGGER fail ON events")
    async with store.begin() as transaction:
        await transaction.commit(Changes(events=[EVENT]))
    assert await observer.fetchval("SELECT count(*) FROM events") == 1
    await store.close()


async def test_values_that_cannot_be_sent_begin_no_transaction(database_url: str) -> None:
    connection = await connect_pipelined(dsn=database_url, server_settings={})
    assert isinstance(connection, PipelinedConnection)
    with pytest.raises(asyncpg.DataError):
        await connection.fetch_in_transaction("SELECT $1::int", "one")
    assert not connection.is_in_transaction()
    assert await connection.fetchval("SELECT 1") == 1
    await connection.fetch_in_transaction("SELECT $1::int", 1)
    with pytest.raises(asyncpg.DataError):
        await connection.execute_and_commit("SELECT $1::int", "one")
    assert connection.is_in_transaction()
    await connection.close()
