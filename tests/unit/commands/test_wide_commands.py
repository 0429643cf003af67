"""Commands that affect many streams: a batch is bounded by its streams, and narrow commands pass."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from command_server.kernel import admission
from command_server.kernel.batch import Request
from command_server.kernel.command_queue import MAX_BATCH_SIZE
from command_server.kernel.outcomes import Accepted
from command_server.kernel.ports import RequestKey, RequestLookup, StoredStream
from command_server.kernel.stream_loader import MAX_BATCH_STREAMS, NARROW
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.support.ledger.rules import account
from tests.support.ledger.rules.messages import CashCheque, Deposit, Distribute, WriteCheque
from tests.support.ledger.rules.shares import Memo, Share

WIDTH = 100


@pytest.fixture(autouse=True)
def _any_wait_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admit all commands, however long a busy machine takes for a batch."""
    for limit in ("MAX_QUEUE_TIME", "MAX_TURN_TIME"):
        monkeypatch.setattr(admission, limit, 60.0)


class CountingStore(MemoryEventStore):
    """Counts the locked streams and the new requests of each transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.locked: list[int] = []
        self.recorded: list[set[str]] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        before = set(self.requests)
        async with super().begin() as transaction:
            transaction.__class__ = CountingTransaction
            yield transaction
        self.recorded.append({request_id for _, request_id in set(self.requests) - before})


class CountingTransaction(MemoryTransaction):
    _store: CountingStore

    async def lock_and_find(
        self, streams: Collection[str], keys: Collection[RequestKey], *, skip_locked: bool = False
    ) -> tuple[Mapping[str, StoredStream], RequestLookup]:
        self._store.locked.append(len(streams))
        return await super().lock_and_find(streams, keys)


def distribute(number: int, width: int = WIDTH) -> Request:
    shares = tuple(Share(f"p-{number}-{payee}", 1) for payee in range(width))
    return request(Distribute("rich", shares, Memo("wide", ())))


async def execute_all(store: MemoryEventStore, requests: list[Request]) -> list[Any]:
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    await commits.execute(request(Deposit("rich", 10**9)))
    results = await asyncio.gather(*(commits.execute(each) for each in requests))
    commits.close()
    await writer
    return [result.outcome for result in results]


async def test_a_batch_is_bounded_by_its_streams_and_narrow_commands_pass() -> None:
    store = CountingStore()
    wide = [distribute(number) for number in range(MAX_BATCH_SIZE)]
    narrow = [request(Deposit(f"n-{number}", 1)) for number in range(100)]
    outcomes = await execute_all(store, [*wide, *narrow])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert max(store.locked) <= MAX_BATCH_STREAMS + len(narrow)
    batches = [batch for batch in store.recorded if batch]
    assert len(batches) >= len(wide) * WIDTH // MAX_BATCH_STREAMS
    ids = {each.request_id for each in narrow}
    assert any(ids <= batch for batch in batches[:3]), "they do not wait for all wide ones"


async def test_a_command_wider_than_a_batch_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "check_fields", lambda _: None)  # which permit no command that is so wide
    store = CountingStore()
    requests = [distribute(0, MAX_BATCH_STREAMS + 1), distribute(1, MAX_BATCH_STREAMS + 1)]
    outcomes = await execute_all(store, requests)
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert max(store.locked) <= MAX_BATCH_STREAMS + 2


async def test_narrow_commands_fill_a_batch_whatever_their_streams() -> None:
    store = CountingStore()
    cheques = [request(WriteCheque(f"c-{number}", f"a-{number}", 1)) for number in range(MAX_BATCH_SIZE)]
    await execute_all(store, [*cheques, *(request(Deposit(f"a-{n}", 1)) for n in range(MAX_BATCH_SIZE))])
    before = len(store.recorded)
    await execute_all(store, [request(CashCheque(f"c-{number}")) for number in range(MAX_BATCH_SIZE)])
    assert NARROW >= 2
    assert max(len(batch) for batch in store.recorded[before:]) == MAX_BATCH_SIZE
