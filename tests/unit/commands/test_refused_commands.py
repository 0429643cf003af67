"""Commands whose data the store refuses: they fail alone, cost little, and then run apart from all others."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import log2
from time import perf_counter
from typing import Any

import pytest
from msgspec import structs

from command_server.kernel import quarantine
from command_server.kernel.admission import MAX_QUEUE_TIME
from command_server.kernel.batch import Request
from command_server.kernel.outcomes import Accepted, CommandResult, Overloaded
from command_server.kernel.ports import Changes, EventRow, StoreUnavailable
from command_server.kernel.quarantine import MAX_DELAY, MIN_REFUSED, SUSPICION, Quarantine
from command_server.kernel.queued_command import QueuedCommand
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.support.ledger.rules.messages import Deposit

BAD = "mallory"
"""The caller whose events the store refuses."""


class RefusingStore(MemoryEventStore):
    """Refuses each transaction with an event of BAD's request ids, like data that PostgreSQL cannot hold."""

    def __init__(self, bad: Sequence[Request] = (), lost_after: int | None = None) -> None:
        super().__init__()
        self.bad = {each.request_id for each in bad}
        self.lost_after = lost_after
        self.transactions: list[list[str]] = []
        """The request ids of each."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        async with super().begin() as transaction:
            if self.lost_after is not None and len(self.transactions) >= self.lost_after:
                raise StoreUnavailable("gone")
            transaction.__class__ = RefusingTransaction
            yield transaction


class RefusingTransaction(MemoryTransaction):
    _store: RefusingStore

    async def commit(self, changes: Changes) -> None:
        ids = [_find_request_id(row) for row in changes.events]
        self._store.transactions.append(ids)
        if not self._store.bad.isdisjoint(ids):
            raise ValueError("not storable")
        await super().commit(changes)


def _find_request_id(row: EventRow) -> str:
    return row.metadata.partition('"causation_id":"')[2][:36]


async def execute(store: RefusingStore, requests: Sequence[Request]) -> list[Any]:
    """Execute all requests in one batch and return their outcomes or errors."""
    commits = group_commit(store)
    pending = asyncio.gather(*map(commits.execute, requests), return_exceptions=True)
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    return [result.outcome if isinstance(result, CommandResult) else result for result in await pending]


@pytest.fixture
def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_DELAY", 0.0)


@pytest.mark.usefixtures("answers_at_once")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 31, 256])
async def test_one_refused_command_costs_twice_the_logarithm_of_its_batch(count: int) -> None:
    for bad in {0, 1, count // 3, count // 2, count - 2, count - 1} & set(range(count)):
        requests = [request(Deposit(f"a-{number}", 1)) for number in range(count)]
        store = RefusingStore([requests[bad]])
        outcomes = await execute(store, requests)
        assert [at for at, outcome in enumerate(outcomes) if isinstance(outcome, ValueError)] == [bad]
        assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == count - 1
        assert len(store.transactions) <= 1 + 2 * log2(count) + (1 if count in (3, 5) else 0)


@pytest.mark.usefixtures("answers_at_once")
async def test_several_refused_commands_fail_alone_and_the_others_keep_their_order() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    for _ in range(20):
        requests = [request(Deposit("one", 1)) for _ in range(choose.randint(1, 100))]
        bad = [each for each in requests if choose.random() < choose.choice((0.02, 0.2, 1.0))]
        store = RefusingStore(bad)
        outcomes = await execute(store, requests)
        assert [isinstance(outcome, ValueError) for outcome in outcomes] == [each in bad for each in requests]
        good = [each.request_id for each in requests if each not in bad]
        assert [_find_request_id(row) for row in store.events] == good
        assert [row.version for row in store.events] == list(range(1, len(good) + 1))


async def test_commands_fail_together_if_the_store_is_lost_meanwhile() -> None:
    requests = [request(Deposit(f"a-{number}", 1)) for number in range(8)]
    outcomes = await execute(RefusingStore(requests[5:6], lost_after=2), requests)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Accepted] * 4 + [StoreUnavailable] * 4, "the first half was committed before"


@asynccontextmanager
async def running(store: RefusingStore) -> AsyncIterator[Any]:
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    yield commits
    commits.close()
    await asyncio.wait_for(writer, 20)


async def test_a_repetition_of_a_refused_command_joins_no_batch() -> None:
    bad = request(Deposit("a", 1))
    store = RefusingStore([bad])
    async with running(store) as commits:
        with pytest.raises(ValueError, match="not storable"):
            await commits.execute(bad)
        for _ in range(3):
            others = [request(Deposit("b", 1), caller="bob") for _ in range(8)]
            results = await asyncio.gather(
                commits.execute(bad), *map(commits.execute, others), return_exceptions=True
            )
            assert [type(result) for result in results] == [ValueError, *[CommandResult] * 8]
    assert all(ids == [bad.request_id] for ids in store.transactions if bad.request_id in ids)
    assert not isinstance(await commits_once(store, request(Deposit("a", 1))), Exception)


async def commits_once(store: RefusingStore, command: Request) -> Any:
    async with running(store) as commits:
        return await commits.execute(command)


async def test_all_commands_of_a_caller_of_refused_ones_run_apart_and_are_answered() -> None:
    bad = [request(Deposit("a", 1), caller=BAD) for _ in range(20)]
    store = RefusingStore(bad)
    async with running(store) as commits:
        for each in bad[:MIN_REFUSED]:
            with pytest.raises(ValueError, match="not storable"):
                await commits.execute(each)
        before = len(store.transactions)
        good = [request(Deposit("a", 1), caller=BAD) for _ in range(5)]
        others = [request(Deposit("a", 1), caller=f"c-{number}") for number in range(50)]
        rest = [*bad[MIN_REFUSED:], *good, *others]
        random.shuffle(rest)
        results = await asyncio.gather(*map(commits.execute, rest), return_exceptions=True)
    refused = [each for each, result in zip(rest, results, strict=True) if isinstance(result, ValueError)]
    assert {each.request_id for each in refused} == {each.request_id for each in bad[MIN_REFUSED:]}
    assert all(isinstance(result, CommandResult | ValueError) for result in results)
    of_others = {each.request_id for each in others}
    shared = [ids for ids in store.transactions[before:] if not of_others.isdisjoint(ids)]
    assert all(of_others.issuperset(ids) for ids in shared)
    assert sum(map(len, shared)) == len(others), "none of them ran twice"
    assert [row.version for row in store.events] == list(range(1, len(store.events) + 1))


class Clock:
    def __init__(self) -> None:
        self.now = perf_counter()

    def __call__(self) -> float:
        return self.now


async def test_a_caller_with_few_refused_commands_among_many_is_no_suspect() -> None:
    waiting = Quarantine(Clock())
    for _ in range(10):
        waiting.report(request(Deposit("a", 1)))
        waiting.note_committed([request(Deposit("a", 1)) for _ in range(5)])
        assert not waiting.includes(request(Deposit("a", 1)))
    for _ in range(10):
        waiting.report(request(Deposit("a", 1)))
    assert waiting.includes(request(Deposit("a", 1)))


async def test_suspicion_ends() -> None:
    clock = Clock()
    waiting = Quarantine(clock)
    bad = [request(Deposit("a", 1), caller=BAD) for _ in range(MIN_REFUSED)]
    assert not any(waiting.includes(each) for each in bad)
    for each in bad:
        waiting.report(each)
    assert waiting.includes(request(Deposit("a", 1), caller=BAD))
    assert not waiting.includes(request(Deposit("a", 1)))
    clock.now += SUSPICION + 1
    assert not any(waiting.includes(each) for each in bad)


async def test_the_answer_to_a_refused_command_is_late_by_its_cost_but_before_its_deadline() -> None:
    clock = Clock()
    waiting, command = Quarantine(clock), request(Deposit("a", 1))
    waiting.add_cost(0.02)
    assert waiting.report(command) == pytest.approx(0.18)
    assert waiting.report(command) == pytest.approx(0.18), "behind the answer before it"
    waiting.add_cost(60)
    assert waiting.report(command) == pytest.approx(MAX_DELAY)
    assert waiting.report(structs.replace(command, deadline=clock.now + 0.3)) == pytest.approx(0.2)
    assert waiting.report(structs.replace(command, deadline=clock.now)) == 0


async def test_a_command_that_would_wait_long_is_refused() -> None:
    clock = Clock()
    waiting = Quarantine(clock)
    command = structs.replace(request(Deposit("a", 1)), arrived_at=clock.now)
    waiting.check()
    waiting.put(QueuedCommand(command, asyncio.get_running_loop().create_future()))
    waiting.check()
    clock.now += MAX_QUEUE_TIME + 0.1
    with pytest.raises(Overloaded):
        waiting.check()
