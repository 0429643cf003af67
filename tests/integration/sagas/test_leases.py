"""Managers divide the partitions, and lose theirs with their sessions, or once their leases have expired."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text

from contracts import streams
from process_manager import leases as module
from process_manager.leases import LEASE, Leases
from process_manager.postgres import lease_statements as statements
from process_manager.postgres.store import SagaStore
from tests.support.harness.saga_run import ALL_PARTITIONS
from tests.support.harness.waiting import until

ALL = frozenset(ALL_PARTITIONS)


@asynccontextmanager
async def managers(store: SagaStore, *contexts: str) -> AsyncIterator[list[Leases]]:
    """Yield the leases of managers of these contexts, the first of which has all partitions."""
    all_leases = [Leases(store, each) for each in contexts]
    await all_leases[0].renew()
    assert all_leases[0].partitions == ALL
    yield all_leases
    for leases in all_leases:
        await leases.leave()


async def share(*all_leases: Leases) -> None:
    for leases in (*all_leases, *all_leases):
        await leases.renew()


async def test_managers_share_the_partitions_and_take_over_released_ones(store: SagaStore) -> None:
    async with managers(store, "ledger", "ledger") as (first, second):
        await share(first, second)
        assert len(first.partitions) == len(second.partitions) == streams.PARTITIONS // 2
        assert first.partitions | second.partitions == ALL
        await second.leave()
        await first.renew()
        assert (first.partitions, second.partitions) == (ALL, frozenset())


async def test_managers_of_other_contexts_do_not_share_the_partitions(store: SagaStore) -> None:
    async with managers(store, "ledger", "ledger,toys") as (ledger, toys):
        await share(ledger, toys)
        assert ledger.partitions == toys.partitions == ALL


async def test_partitions_are_free_as_soon_as_the_session_of_their_holder_ends(
    store: SagaStore, database_url: str
) -> None:
    async with managers(store, "ledger", "ledger") as (first, second):
        await share(first, second)
        await end_session(database_url, first)
        await second.renew()
        assert second.partitions == ALL
        await share(first, second)
        assert first.partitions | second.partitions == ALL


async def test_a_frozen_manager_loses_its_partitions_after_the_lease(store: SagaStore) -> None:
    async with managers(store, "ledger", "ledger") as (frozen, other):
        await other.renew()
        assert other.partitions == frozenset()
        await end_leases(store, LEASE)
        await other.renew()
        assert other.partitions == ALL
        await share(frozen, other)
        assert len(frozen.partitions) == streams.PARTITIONS // 2


async def test_a_manager_that_is_frozen_while_it_rebalances_takes_nothing_from_the_others(
    store: SagaStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE", 0.5)
    async with managers(store, "ledger") as (manager,):
        frozen = await asyncpg.connect(database_url)
        async with frozen.transaction():
            assert await frozen.fetchval(statements.TRY_LOCK)
            await frozen.execute(statements.JOIN, "ledger", "frozen", 5.0, [], [], [])
            await add_member(database_url)  # the shares have changed
            await manager.renew()
            assert manager.partitions == ALL
        await frozen.close()
        await manager.renew()
        assert len(manager.partitions) < streams.PARTITIONS


async def test_a_manager_that_is_removed_while_it_renews_joins_again(
    store: SagaStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = statements.LOCK.replace("SELECT", "SELECT true FROM")
    monkeypatch.setattr(statements, "TRY_LOCK", lock)  # it comes just after the removal
    async with managers(store, "ledger") as (manager,):
        other = await asyncpg.connect(database_url)
        async with other.transaction():
            await other.execute(statements.LOCK)
            await other.execute("DELETE FROM saga_managers")
            await other.execute("DELETE FROM saga_leases")
            renewing = asyncio.create_task(manager.renew())
            await until(lambda: waits_for_lock(store), 5)
        await other.close()
        await renewing
        assert manager.partitions == ALL
        async with store.engine.begin() as connection:
            (member,) = await connection.scalars(text("SELECT name FROM saga_managers"))
            (holder,) = await connection.scalars(text("SELECT DISTINCT holder FROM saga_leases"))
        assert member == holder


async def waits_for_lock(store: SagaStore) -> bool:
    async with store.engine.begin() as connection:
        waiting = "SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        condition = "d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted"
        return bool(await connection.scalar(text(f"{waiting} WHERE {condition}")))


async def test_a_manager_does_not_trust_a_lease_that_it_could_not_renew_in_time(
    store: SagaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE", 1.0)
    async with managers(store, "ledger") as (manager,):
        await until(lambda: not manager.partitions, 5)
        await manager.renew()
        assert manager.partitions == ALL


async def test_released_partitions_are_taken_over_before_the_next_renewal(
    store: SagaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE", 5.0)
    monkeypatch.setattr(module, "RENEWAL_INTERVAL", 60.0)
    async with managers(store, "ledger", "ledger") as (first, second):
        stopping = asyncio.Event()
        running = asyncio.gather(first.run(stopping), second.run(stopping))
        await until(lambda: len(second.partitions) == streams.PARTITIONS // 2, 4)
        await second.leave()
        await until(lambda: first.partitions == ALL, 4)
        stopping.set()
        await running


async def test_a_manager_of_an_earlier_release_keeps_its_partitions(store: SagaStore) -> None:
    async with managers(store, "ledger") as (manager,):
        await manager.leave()
        async with store.engine.begin() as connection:
            for statement in (
                "INSERT INTO saga_managers (contexts, name, until)"
                " VALUES ('ledger', 'earlier', now() + interval '5 seconds')",
                "INSERT INTO saga_leases (contexts, partition, holder, until)"
                " VALUES ('ledger', 3, 'earlier', now() + interval '5 seconds')",
            ):
                await connection.execute(text(statement))
        await share(manager)
        assert 3 not in manager.partitions
        assert len(manager.partitions) == streams.PARTITIONS // 2


async def test_a_lease_from_a_clock_that_was_ahead_is_taken_over(store: SagaStore) -> None:
    async with managers(store, "ledger", "ledger") as (_, other):
        await end_leases(store, -3 * 3600)
        await other.renew()
        assert other.partitions == ALL


async def add_member(database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    await owner.execute(statements.JOIN, "ledger", "other", 5.0, [], [], [])
    await owner.close()


async def end_session(database_url: str, leases: Leases) -> None:
    """End the session of a manager, as its death does, and wait until PostgreSQL has ended it."""
    session = await leases._session.open()
    owner = await asyncpg.connect(database_url)
    assert await owner.fetchval("SELECT pg_terminate_backend($1, 5000)", session.get_server_pid())
    await owner.close()


async def end_leases(store: SagaStore, seconds: float) -> None:
    """Let so many seconds pass for all leases and memberships."""
    async with store.engine.begin() as connection:
        for table in ("saga_leases", "saga_managers"):
            change = text(f"UPDATE {table} SET until = until - make_interval(secs => :seconds)")
            await connection.execute(change, {"seconds": seconds})


LOCKS = {
    "a lease": "SELECT FROM saga_leases WHERE partition = 3 FOR UPDATE",
    "a membership": "SELECT FROM saga_managers FOR UPDATE",
}


@pytest.mark.parametrize("lock", LOCKS)
async def test_a_locked_row_takes_no_partition_from_a_manager(
    store: SagaStore, database_url: str, lock: str
) -> None:
    async with managers(store, "ledger", "ledger") as (first, second):
        await share(first, second)
        held = first.partitions, second.partitions
        holder = await asyncpg.connect(database_url)
        async with holder.transaction():
            await holder.execute(LOCKS[lock])
            await share(first, second)
            assert (first.partitions, second.partitions) == held
        await holder.close()
        await share(first, second)
        assert first.partitions | second.partitions == ALL
        assert len(first.partitions) == len(second.partitions)
