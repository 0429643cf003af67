"""Group commit while commits hang: repetitions, deadlines, and nothing executed that was refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any

import pytest
from msgspec import structs

from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted, DeadlinePassed, OutcomePending
from command_server.kernel.ports import Changes
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import Deposit


class HangingStore(MemoryEventStore):
    """Commits that write anything hang while `hangs` is set; `reached` is set by the first."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.reached, self.released = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        async with super().begin() as transaction:
            transaction.__class__ = HangingTransaction
            yield transaction


class HangingTransaction(MemoryTransaction):
    _store: HangingStore

    async def commit(self, changes: Changes) -> None:
        if self._store.hangs and changes.requests:
            self._store.reached.set()
            await self._store.released.wait()
        await super().commit(changes)


@asynccontextmanager
async def running(store: MemoryEventStore) -> AsyncIterator[GroupCommit]:
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    yield commits
    commits.close()
    await writer


async def test_commands_in_a_commit_that_hangs_are_answered_before_their_deadline() -> None:
    store = HangingStore()
    async with running(store) as commits:
        store.hangs = True
        first = request(Deposit("a", 1), deadline=perf_counter() + 0.5)
        started = asyncio.create_task(commits.execute(first))
        await store.reached.wait()
        queued = asyncio.create_task(commits.execute(request(Deposit("b", 1), deadline=perf_counter() + 0.5)))
        patient = asyncio.create_task(commits.execute(request(Deposit("c", 1))))
        with pytest.raises(OutcomePending):
            await started
        assert first.deadline is not None and perf_counter() < first.deadline
        with pytest.raises(DeadlinePassed):
            await queued
        store.released.set()
        await patient
        repeated = await commits.execute(structs.replace(first, deadline=None))
        assert repeated.outcome == store.requests[first.key].outcome
    assert {event.stream for event in store.events} == {"ledger.account.a", "ledger.account.c"}


async def test_a_repetition_does_not_wait_for_the_commit_of_the_commands_beside_it() -> None:
    store, repeated = HangingStore(), request(Deposit("a", 1))
    async with running(store) as commits:
        before = await commits.execute(repeated)
        store.hangs = True
        others = asyncio.gather(commits.execute(request(Deposit("b", 1))), commits.execute(repeated))
        again = asyncio.create_task(commits.execute(repeated))
        assert await asyncio.wait_for(again, 5) == before
        assert not others.done()
        store.released.set()
        assert [isinstance(each.outcome, Accepted) for each in await others] == [True, True]


async def test_the_watch_of_deadlines_ends_with_the_commit() -> None:
    store = HangingStore()
    async with running(store) as commits:
        store.hangs = True
        call = asyncio.create_task(commits.execute(request(Deposit("a", 1), deadline=perf_counter() + 0.5)))
        with suppress(OutcomePending):
            await call
        store.released.set()
        watch = commits._deadlines
        await until(lambda: watch._timer is not None and watch._timer.cancelled())
