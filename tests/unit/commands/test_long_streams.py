"""Commands on streams with many events to fold, on the in-memory store."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from msgspec import structs

from command_server import observer
from command_server.kernel import fold, fold_waits, ports, stream_folder, stream_loader
from command_server.kernel.admission import MAX_QUEUE_TIME
from command_server.kernel.batch import Request
from command_server.kernel.command_queue import MAX_BATCH_SIZE
from command_server.kernel.fold import BESIDE_COMMANDS
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted, CommandResult, DeadlinePassed, Overloaded, Rejection
from command_server.kernel.ports import StoredEvent, StoredSnapshot, StoreUnavailable
from command_server.metrics import FOLD_AGE, FOLDS
from tests.support.builders.long_ledger_streams import ACCOUNTS, OTHER_CODE, add_account, break_event
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import CashCheque, Deposit, Transfer, WriteCheque

CHUNK_SIZE = BESIDE_COMMANDS.chunk_size
LONG = 3 * stream_loader.MAX_FOLDED_EVENTS


class CountingStore(MemoryEventStore):
    """Counts the events that each transaction reads; chunks of a stream are read after its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.read_in_transactions: list[int] = []
        self.chunks: list[str] = []
        """The streams of all chunks."""
        self.gates: dict[str, asyncio.Event] = {}
        self.max_chunks = 10_000
        """Reads of chunks that return."""
        self.failing_reads: set[int] = set()
        """The numbers of the reads of chunks that fail; the first is 1."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        counts = self.read_in_transactions
        counts.append(0)

        class CountingTransaction(MemoryTransaction):
            async def read_events(self, after: Mapping[str, int]) -> Mapping[str, Sequence[StoredEvent]]:
                events = await super().read_events(after)
                counts[-1] += sum(map(len, events.values()))
                return events

        async with self._lock:
            yield CountingTransaction(self)

    async def read_chunk(self, stream: str, after: int, limit: int) -> Sequence[StoredEvent]:
        self.chunks.append(stream)
        if len(self.chunks) > self.max_chunks:
            await asyncio.Event().wait()
        if stream in self.gates:
            await self.gates[stream].wait()
        if len(self.chunks) in self.failing_reads:
            raise StoreUnavailable("the connection was lost")
        return await super().read_chunk(stream, after, limit)

    def close_gate(self, stream: str) -> asyncio.Event:
        self.gates[stream] = asyncio.Event()
        return self.gates[stream]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> CountingStore:
    monkeypatch.setattr(stream_folder, "RETRY_PAUSE", 0.01)
    return CountingStore()


@pytest.fixture
async def commits(store: CountingStore) -> AsyncIterator[GroupCommit]:
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    yield commits
    commits.close()
    await asyncio.wait_for(writer, 20)


async def execute(commits: GroupCommit, *requests: Request) -> list[Any]:
    """Return outcomes or errors."""
    results = await asyncio.gather(*map(commits.execute, requests), return_exceptions=True)
    return [result.outcome if isinstance(result, CommandResult) else result for result in results]


def start(commits: GroupCommit, *requests: Request) -> "asyncio.Task[list[Any]]":
    return asyncio.create_task(execute(commits, *requests))


async def test_a_long_stream_is_folded_outside_transactions_once(
    store: CountingStore, commits: GroupCommit
) -> None:
    stream = add_account(store, "a", LONG)
    requests = [request(Deposit("a", 1)) for _ in range(20)]
    outcomes = await execute(commits, *requests)
    assert [outcome.versions for outcome in outcomes] == [{stream: LONG + n} for n in range(1, 21)]
    assert store.streams[stream].state == f'{{"balance":{LONG + 20}}}'
    assert max(store.read_in_transactions) == 0
    assert len(store.chunks) == LONG // CHUNK_SIZE + 1
    await execute(commits, request(Deposit("a", 1)))
    assert len(store.chunks) == LONG // CHUNK_SIZE + 1


async def test_the_commands_of_other_streams_do_not_wait_for_a_long_one(
    store: CountingStore, commits: GroupCommit
) -> None:
    gate = store.close_gate(add_account(store, "a", LONG))
    long = start(commits, request(Deposit("a", 1)))
    others = [request(Deposit(f"b-{n}", 1)) for n in range(MAX_BATCH_SIZE - 1)]
    outcomes = await asyncio.wait_for(execute(commits, *others), 20)
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert not long.done()
    gate.set()
    assert isinstance((await long)[0], Accepted)


async def test_a_transaction_folds_a_bounded_number_of_events_of_all_its_streams(
    store: CountingStore, commits: GroupCommit
) -> None:
    count, size = 12, stream_loader.MAX_FOLDED_EVENTS // 3
    for number in range(count):
        add_account(store, f"a-{number}", size)
    outcomes = await execute(commits, *(request(Deposit(f"a-{number}", 1)) for number in range(count)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert 0 < max(store.read_in_transactions) <= stream_loader.MAX_FOLDED_EVENTS


async def test_few_events_that_are_large_are_folded_outside_transactions_too(
    store: CountingStore, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, size = add_account(store, "a", 50), len(store.events[0].data)
    small = add_account(store, "b", 2)
    for module in (ports, fold):
        monkeypatch.setattr(module, "MAX_READ_BYTES", 10 * size)
    outcomes = await execute(commits, *(request(Deposit(name, 1)) for name in "ab"))
    assert [outcome.versions for outcome in outcomes] == [{large: 51}, {small: 3}]
    assert max(store.read_in_transactions) == 10
    assert store.chunks.count(large) == 6, "five full chunks, and what came since"


class IdleHelper:
    """A helper that takes folds from a number of events on, and folds nothing until it may end."""

    def __init__(self, least: int) -> None:
        self.least = least
        self.streams: list[str] = []
        self.may_end = asyncio.Event()

    def takes(self, events: int) -> bool:
        return events >= self.least

    async def fold(self, stream: str, version: int) -> int:
        self.streams.append(stream)
        await self.may_end.wait()
        return 0

    async def close(self) -> None:
        self.may_end.set()


async def test_the_helper_gets_what_would_take_long_and_other_folds_do_not_wait_for_it(
    store: CountingStore,
) -> None:
    helper = IdleHelper(3 * LONG)
    commits = group_commit(store, fold_helper=helper)
    writer = asyncio.create_task(commits.run())
    long = add_account(store, "long", 5 * LONG)
    command = start(commits, request(Deposit("long", 1)))
    await until(lambda: bool(helper.streams))
    for number in range(3):
        add_account(store, f"short-{number}", LONG)
        (outcome,) = await execute(commits, request(Deposit(f"short-{number}", 1)))
        assert isinstance(outcome, Accepted)
    assert (helper.streams, command.done(), long in store.chunks) == ([long], False, False)
    helper.may_end.set()
    (outcome,) = await command
    assert outcome.versions == {long: 5 * LONG + 1}, "the rest, here everything, was folded afterwards"
    commits.close()
    await asyncio.wait_for(writer, 20)


async def test_a_stop_does_not_wait_for_the_helper(store: CountingStore) -> None:
    helper = IdleHelper(0)
    commits = group_commit(store, fold_helper=helper)
    writer = asyncio.create_task(commits.run())
    add_account(store, "a", LONG)
    command = start(commits, request(Deposit("a", 1)))
    await until(lambda: bool(helper.streams))
    command.cancel()  # as gRPC does when the time to stop is up
    commits.close()
    await asyncio.wait_for(writer, 20)


async def test_folds_under_way_are_measured(store: CountingStore, commits: GroupCommit) -> None:
    for gauge in (FOLDS, FOLD_AGE):
        gauge.clear()
    observer.observe_folds(commits.folder)
    gate = store.close_gate(add_account(store, "a", LONG))
    command = start(commits, request(Deposit("a", 1)))
    await until(lambda: FOLDS.read_values() == {(): 1})
    await until(lambda: FOLD_AGE.read_values()[()] > 0)
    gate.set()
    await command
    assert FOLDS.read_values() == FOLD_AGE.read_values() == {(): 0}


async def test_a_short_fold_does_not_wait_for_a_long_one(store: CountingStore, commits: GroupCommit) -> None:
    long_stream = add_account(store, "long", 5 * LONG)
    short_stream = add_account(store, "short", LONG)
    long = start(commits, request(Deposit("long", 1)))
    await until(lambda: len(store.chunks) > 4)
    assert isinstance((await execute(commits, request(Deposit("short", 1))))[0], Accepted)
    assert not long.done()
    read_meanwhile = len(store.chunks) - store.chunks.index(short_stream) - store.chunks.count(short_stream)
    assert read_meanwhile <= 2 * store.chunks.count(short_stream), "they take turns"
    await long
    assert store.streams[long_stream].version == 5 * LONG + 1


async def test_a_command_past_its_deadline_is_answered_and_the_fold_continues(
    store: CountingStore, commits: GroupCommit
) -> None:
    stream = add_account(store, "a", LONG)
    gate = store.close_gate(stream)
    (error,) = await execute(commits, request(Deposit("a", 1), deadline=perf_counter() + 0.1))
    assert isinstance(error, DeadlinePassed)
    gate.set()
    await until(lambda: bool(store.snapshots))
    kept = StoredSnapshot(LONG, f'{{"balance":{LONG}}}')
    assert store.snapshots == {(stream, ACCOUNTS.snapshots.fingerprint): kept}
    store.chunks.clear()
    (outcome,) = await execute(commits, request(Deposit("a", 1)))
    assert (outcome.versions, len(store.chunks)) == ({stream: LONG + 1}, 1)


async def test_what_other_servers_write_meanwhile_is_folded_too(
    store: CountingStore, commits: GroupCommit
) -> None:
    stream = add_account(store, "a", LONG)
    gate = store.close_gate(stream)
    command = start(commits, request(Transfer("a", "b", LONG + 7)))
    await until(lambda: bool(store.chunks))
    store.events.clear()
    add_account(store, "a", LONG + 7)
    gate.set()
    (outcome,) = await command
    assert outcome.versions[stream] == LONG + 8
    assert store.streams[stream].state == '{"balance":0}'


async def test_a_transfer_between_two_long_streams_waits_for_both(
    store: CountingStore, commits: GroupCommit
) -> None:
    payer, payee = add_account(store, "a", LONG), add_account(store, "b", LONG)
    (outcome,) = await execute(commits, request(Transfer("a", "b", LONG)))
    assert outcome.versions == {payer: LONG + 1, payee: LONG + 1}
    assert max(store.read_in_transactions) == 0


async def test_a_long_related_stream_is_folded_too(store: CountingStore, commits: GroupCommit) -> None:
    stream = add_account(store, "a", LONG)
    await execute(commits, request(WriteCheque("c", "a", 5)))
    cashed, refused = await execute(commits, request(CashCheque("c")), request(CashCheque("c")))
    assert cashed.versions == {"ledger.cheque.c": 2, stream: LONG + 1}
    assert isinstance(refused, Rejection)
    assert max(store.read_in_transactions) == 0


@pytest.mark.parametrize("events", [LONG, 10], ids=["long", "short"])
async def test_an_event_that_cannot_be_folded_fails_the_commands_of_its_stream_only(
    store: CountingStore, commits: GroupCommit, events: int
) -> None:
    stream = add_account(store, "a", events)
    break_event(store, stream, events - 2)
    requests = [request(Deposit(name, 1)) for name in ("b", "a", "c", "a")]
    outcomes = await execute(commits, *requests)
    assert [isinstance(outcome, DecodeError) for outcome in outcomes] == [False, True, False, True]
    assert len(store.read_in_transactions) == 1, "no command was tried again by itself"
    if events == LONG:
        await until(lambda: bool(store.snapshots))
        (kept,) = store.snapshots.values()
        assert kept.version == events - 3, "the next attempt begins at the event"


async def test_a_lost_connection_does_not_lose_the_state_that_was_reached(
    store: CountingStore, commits: GroupCommit
) -> None:
    stream = add_account(store, "a", LONG)
    store.failing_reads = {1, 5, 6}
    (outcome,) = await execute(commits, request(Deposit("a", 1)))
    assert outcome.versions == {stream: LONG + 1}
    assert len(store.chunks) == LONG // CHUNK_SIZE + 1 + 3, "each failed read once more"


async def test_a_store_that_stays_away_fails_the_waiting_commands(
    store: CountingStore, commits: GroupCommit
) -> None:
    add_account(store, "a", LONG)
    store.failing_reads = set(range(1, stream_folder.ATTEMPTS + 1))
    (error,) = await execute(commits, request(Deposit("a", 1)))
    assert isinstance(error, StoreUnavailable)


async def test_commands_that_wait_for_a_fold_do_not_make_the_queue_look_slow(
    store: CountingStore, commits: GroupCommit
) -> None:
    gate = store.close_gate(add_account(store, "a", LONG))
    early = structs.replace(request(Deposit("a", 1)), arrived_at=perf_counter() - 10 * MAX_QUEUE_TIME)
    waiting = start(commits, early)
    await until(lambda: bool(store.chunks))
    gate.set()
    while not waiting.done():
        (outcome,) = await execute(commits, request(Deposit("b", 1)))
        assert isinstance(outcome, Accepted)
    assert isinstance(waiting.result()[0], Accepted)


async def test_waiting_commands_are_bounded(
    store: CountingStore, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_waits, "MAX_WAITS_OF_STREAM", 3)
    monkeypatch.setattr(fold_waits, "MAX_WAITS", 4)
    gates = [store.close_gate(add_account(store, name, LONG)) for name in "abc"]
    waiting = start(commits, *(request(Deposit("a", 1)) for _ in range(5)))
    await until(lambda: bool(store.chunks))
    second = start(commits, request(Deposit("b", 1)))
    await until(lambda: store.read_in_transactions[-1:] == [0] and len(store.read_in_transactions) > 1)
    (third,) = await execute(commits, request(Deposit("c", 1)))
    assert isinstance(third, Overloaded)
    for gate in gates:
        gate.set()
    outcomes = [*await waiting, *await second]
    assert [isinstance(outcome, Overloaded) for outcome in outcomes] == [False] * 3 + [True] * 2 + [False]


async def test_a_stop_ends_a_fold_and_keeps_its_state(store: CountingStore) -> None:
    stream = add_account(store, "a", LONG)
    store.max_chunks = 6
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    command = start(commits, request(Deposit("a", 1)))
    await until(lambda: len(store.chunks) > store.max_chunks)
    command.cancel()  # as gRPC does when the time to stop is up
    commits.close()
    await asyncio.wait_for(writer, 20)
    kept = store.snapshots[stream, ACCOUNTS.snapshots.fingerprint]
    read = store.max_chunks * CHUNK_SIZE
    assert read - CHUNK_SIZE <= kept.version <= read, "the last chunk is folded while the next one is read"
    assert kept.state == f'{{"balance":{kept.version}}}'
    assert store.streams[stream].fingerprint == OTHER_CODE


async def test_a_retry_is_answered_without_a_fold(store: CountingStore, commits: GroupCommit) -> None:
    first = request(Deposit("a", 1))
    (outcome,) = await execute(commits, first)
    store.events.clear()
    add_account(store, "a", LONG)
    assert await execute(commits, first) == [outcome]
    assert store.chunks == []


async def test_a_rejected_command_stores_the_state_that_was_folded_for_it(
    store: CountingStore, commits: GroupCommit
) -> None:
    stream = add_account(store, "a", LONG)
    for _ in range(2):
        (outcome,) = await execute(commits, request(Transfer("a", "b", LONG + 1)))
        assert isinstance(outcome, Rejection)
        assert store.streams[stream].state == f'{{"balance":{LONG}}}'
        assert store.chunks.count(stream) == LONG // CHUNK_SIZE + 1


async def test_servers_of_two_releases_that_take_turns_fold_only_what_the_other_wrote(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = add_account(store, "a", LONG)
    own = f'{{"balance":{LONG}}}'
    store.streams[stream] = replace(store.streams[stream], state=own, fingerprint="code 0")
    for turn, chunks in enumerate((0, LONG // CHUNK_SIZE + 1, 1, 1)):
        monkeypatch.setitem(vars(ACCOUNTS.snapshots), "fingerprint", f"code {turn % 2}")
        store.chunks.clear()
        commits = group_commit(store)
        writer = asyncio.create_task(commits.run())
        (outcome,) = await execute(commits, request(Deposit("a", 1)))
        commits.close()
        await writer
        assert outcome.versions == {stream: LONG + turn + 1}
        assert len(store.chunks) == chunks
    assert store.streams[stream].state == f'{{"balance":{LONG + 4}}}'


async def test_an_unreadable_snapshot_of_a_long_stream_is_made_again(
    store: CountingStore, commits: GroupCommit
) -> None:
    stream = add_account(store, "a", LONG)
    own = ACCOUNTS.snapshots.fingerprint
    store.streams[stream] = replace(store.streams[stream], state='{"bal', fingerprint=own)
    store.snapshots[stream, own] = StoredSnapshot(LONG - 1, "{")
    for number in (1, 2):
        (outcome,) = await execute(commits, request(Deposit("a", 1)))
        assert outcome.versions == {stream: LONG + number}
    assert store.streams[stream].state == f'{{"balance":{LONG + 2}}}'
    assert len(store.chunks) == LONG // CHUNK_SIZE + 1
