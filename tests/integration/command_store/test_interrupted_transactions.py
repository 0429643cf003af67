"""Transactions that are cancelled, or that PostgreSQL stops answering, and others that hold their locks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from command_server.kernel.ports import (
    Changes,
    EventRow,
    StoreConflict,
    StoredStream,
    StoreUnavailable,
    StreamRow,
)
from command_server.postgres import event_store
from command_server.postgres.event_store import PostgresEventStore
from command_server.postgres.pipelined_connection import PipelinedConnection, connect_pipelined
from runtime.postgres import create_engine
from tests.support.builders.requests import request
from tests.support.harness.proxied_writer import make_proxy, run_store, run_writer
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import Deposit

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
IN_TRANSACTION = """
SELECT count(*) FROM pg_stat_activity
WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
"""
NOW = datetime(2026, 1, 2, tzinfo=UTC)
STREAM = StreamRow("a.b.1", "a.b", 1, NOW, "{}", "print", is_new=True)
EVENT = EventRow("a.b.1", 1, "t.Event", b"1", "{}", NOW)
COMMAND_TIMEOUT = 1.0
REPEATED = 200


@pytest.fixture
async def observer(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresEventStore]:
    monkeypatch.setattr(event_store, "LOCK_TIMEOUT", "1s")  # long enough to cancel the wait on a slow machine
    store = PostgresEventStore(database_url)
    async with store.begin() as transaction:
        await transaction.commit(Changes([STREAM], [EVENT]))
    yield store
    await store.close()


async def lock(store: PostgresEventStore) -> Mapping[str, StoredStream]:
    async with store.begin() as transaction:
        return (await transaction.lock_and_find(["a.b.1"], []))[0]


async def test_a_transaction_that_is_cancelled_while_it_waits_for_a_lock_is_rolled_back(
    database_url: str, store: PostgresEventStore, observer: "asyncpg.Connection[Any]"
) -> None:
    async def is_waiting() -> bool:
        return bool(await observer.fetchval(WAITING))

    async def only_the_holder_is_in_a_transaction() -> bool:
        return bool(await observer.fetchval(IN_TRANSACTION) == 1)

    holder: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM streams FOR UPDATE")
        waiting = asyncio.create_task(lock(store))
        await until(is_waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with store.begin() as transaction:
            assert await transaction.read_streams(["a.b.1"])
        await until(only_the_holder_is_in_a_transaction)
    assert await lock(store)
    await holder.close()


async def test_a_silent_postgresql_blocks_the_writer_for_one_time_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = partial(create_engine, command_timeout=COMMAND_TIMEOUT)
    monkeypatch.setattr(event_store, "create_engine", create)
    proxy = make_proxy(database_url)
    async with run_store(database_url, proxy) as store:
        async with store.begin() as transaction:
            await transaction.commit(Changes([STREAM], [EVENT]))
        with pytest.raises(StoreUnavailable):
            async with store.begin() as transaction:
                await transaction.lock_and_find(["a.b.1"], [])
                proxy.is_silent = True
                began_at = perf_counter()
                await transaction.commit(Changes(events=[EVENT]))
        assert perf_counter() - began_at < 1.9 * COMMAND_TIMEOUT


async def test_a_silent_postgresql_delays_no_end_of_idle_connections(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = make_proxy(database_url)
    async with run_store(database_url, proxy) as store:
        async with store.connect(), store.connect():
            pass
        proxy.is_silent = True
        closing = asyncio.create_task(store.close())
        ended, _ = await asyncio.wait({closing}, timeout=2.0)
        closing.cancel()  # as a call's deadline does
        await asyncio.wait({closing})
    assert not caplog.records, "SQLAlchemy logs the cancellation as an error, with a traceback"
    assert ended


async def test_time_outs_leave_nothing_in_the_connection(database_url: str) -> None:
    connection = await connect_pipelined(dsn=database_url, server_settings={})
    assert isinstance(connection, PipelinedConnection)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)", timeout=0.02)
        # Without a time-out: one that ends before the cancellation was answered closes the connection.
        assert await connection.fetchval("SELECT 1") == 1
    tasks = connection._cancellations  # type: ignore[attr-defined] # asyncpg publishes no other trace
    await until(lambda: not tasks, 10)
    await connection.close()


class CountingStore(PostgresEventStore):
    conflicts = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        try:
            async with super().begin() as transaction:
                yield transaction
        except StoreConflict:
            self.conflicts += 1
            raise


async def test_of_two_writers_with_the_same_request_the_second_mostly_finds_it(database_url: str) -> None:
    """What it does not find is a conflict, which rolls its batch back. Writers of one command wait for each
    other for less than 1 ms.
    """
    stores = [CountingStore(database_url) for _ in range(2)]
    async with run_writer(stores[0]) as first, run_writer(stores[1]) as second:
        for _ in range(REPEATED):
            deposit = request(Deposit("a", 1), request_id=str(uuid4()))
            results = await asyncio.gather(first.execute(deposit), second.execute(deposit))
            assert results[0] == results[1]
    conflicts = sum(store.conflicts for store in stores)
    print(f"{conflicts} conflicts")
    assert conflicts <= REPEATED // 10
    for store in stores:
        await store.close()
