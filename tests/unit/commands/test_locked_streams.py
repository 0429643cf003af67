"""Streams that another transaction has locked: only their own commands wait for them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest

from command_server.kernel import lock_waits
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.lock_waits import MAX_WAIT, MAX_WAITS_OF_STREAM
from command_server.kernel.outcomes import Accepted
from command_server.kernel.ports import RequestKey, RequestLookup, StoredStream, StoreLocked
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import CashCheque, Deposit, WriteCheque

A, B = "ledger.account.a", "ledger.account.b"


class LockingStore(MemoryEventStore):
    """A store in which others hold the locks of some streams, or of all (`is_locked`)."""

    def __init__(self) -> None:
        super().__init__()
        self.locked = set[str]()
        self.is_locked = False
        self.waits = 0
        """Batches that have waited for a lock in vain."""
        self.attempts = 0
        """Batches that have not waited for locks."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        async with super().begin() as transaction:
            transaction.__class__ = LockingTransaction
            yield transaction


class LockingTransaction(MemoryTransaction):
    _store: LockingStore

    async def lock_and_find(
        self, streams: Collection[str], keys: Collection[RequestKey], *, skip_locked: bool = False
    ) -> tuple[Mapping[str, StoredStream], RequestLookup]:
        if self._store.is_locked or (not skip_locked and not self._store.locked.isdisjoint(streams)):
            self._store.waits += 1
            raise StoreLocked("timeout")
        self._store.attempts += skip_locked
        return await super().lock_and_find([name for name in streams if name not in self._store.locked], keys)


@asynccontextmanager
async def running(store: MemoryEventStore) -> AsyncIterator[GroupCommit]:
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    await asyncio.gather(*(commits.execute(request(Deposit(name, 1))) for name in "ab"))
    yield commits
    commits.close()
    await writer


async def test_commands_beside_those_of_a_locked_stream_continue() -> None:
    store = LockingStore()
    async with running(store) as commits:
        store.locked.add(A)
        waiting = asyncio.create_task(commits.execute(request(Deposit("a", 1))))
        for _ in range(5):
            new = commits.execute(request(Deposit("a", 1), deadline=perf_counter() + 0.05))
            refused, accepted = await asyncio.gather(
                new, commits.execute(request(Deposit("b", 1))), return_exceptions=True
            )
            assert isinstance(refused, StoreLocked)
            assert not isinstance(accepted, BaseException)
        assert store.waits == 1, "the other batches do not wait, since the stream was found locked"
        assert not waiting.done()
        store.locked.clear()
        assert isinstance((await waiting).outcome, Accepted)
    assert (store.streams[A].version, store.streams[B].version) == (2, 6)


async def test_a_command_of_a_stream_that_stays_locked_fails() -> None:
    store = LockingStore()
    async with running(store) as commits:
        store.locked.add(A)
        start = perf_counter()
        with pytest.raises(StoreLocked):
            await commits.execute(request(Deposit("a", 1)))
        assert perf_counter() - start < MAX_WAIT + 5
        assert store.streams[A].version == 1


async def test_few_commands_wait_for_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_waits, "MAX_WAIT", 60.0)  # on a busy machine
    store = LockingStore()
    async with running(store) as commits:
        store.locked.add(A)
        calls = (commits.execute(request(Deposit("a", 1))) for _ in range(MAX_WAITS_OF_STREAM + 10))
        tasks = [asyncio.create_task(call) for call in calls]
        await until(lambda: sum(task.done() for task in tasks) == 10)
        later = store.attempts + 2
        await until(lambda: store.attempts >= later)
        assert sum(task.done() for task in tasks) == 10
        store.locked.clear()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, StoreLocked) for result in results) == 10


async def test_a_repetition_needs_no_lock() -> None:
    store, repeated = LockingStore(), request(Deposit("a", 1))
    async with running(store) as commits:
        before = await commits.execute(repeated)
        store.locked.add(A)
        assert await commits.execute(repeated) == before


async def test_a_related_stream_that_is_locked_delays_its_command_only() -> None:
    store = LockingStore()
    async with running(store) as commits:
        await commits.execute(request(WriteCheque("c", "a", 1)))
        store.locked.add(A)
        waiting = asyncio.create_task(commits.execute(request(CashCheque("c"))))
        await until(lambda: store.waits == 1)
        await commits.execute(request(Deposit("b", 1)))
        assert not waiting.done()
        await until(lambda: store.attempts >= 3)
        assert store.waits == 1
        store.locked.clear()
        assert isinstance((await waiting).outcome, Accepted)


async def test_a_lock_that_is_met_while_writing_fails_the_batch_at_once() -> None:
    class LockedTable(LockingStore):
        has_locked_table = False

        @asynccontextmanager
        async def begin(self) -> AsyncIterator[Any]:
            async with super().begin() as transaction:
                yield transaction
                if self.has_locked_table:
                    self.waits += 1
                    raise StoreLocked("timeout")

    store = LockedTable()
    async with running(store) as commits:
        store.has_locked_table = True
        with pytest.raises(StoreLocked):
            await commits.execute(request(Deposit("c", 1)))
        assert store.waits == 1
        store.has_locked_table = False


async def test_a_store_that_is_locked_as_a_whole_fails_the_batch_at_once() -> None:
    store = LockingStore()
    async with running(store) as commits:
        store.is_locked = True
        calls = (commits.execute(request(Deposit(f"a-{number}", 1))) for number in range(64))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {StoreLocked}
        assert store.waits <= 4, "two attempts for a batch"
        store.is_locked = False
