"""Streams that a saga has to read again: beside the feeds, in slices, outside any transaction."""

import asyncio
import random
import secrets
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from contracts.envelope import RecordedEvent
from process_manager.engine import Engine
from process_manager.feeds.stream_reads import read_stream_from
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.groups.delivery import Progress
from process_manager.postgres.due_work import NO_CHECKPOINT, Feed
from process_manager.postgres.store import SagaStore
from runtime.jetstream import SubjectReader
from runtime.process.error_place import split_place
from tests.support.harness import account_watch, projection_run
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN, BROKEN_KEY
from tests.support.harness.fragile_accounts import publish_all
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, paid, written
from tests.support.harness.waiting import until

ACCOUNTS = Feed(ACCOUNT_WATCH.name, "ledger.account", 0)
CHEQUES = Feed(ACCOUNT_WATCH.name, "ledger.cheque", 0)

END_OTHER_CONNECTIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class HeldRun(SagaRun):
    """A run whose streams are read only while `allowed` is set."""

    def __init__(self, store: SagaStore) -> None:
        super().__init__(store, ACCOUNT_WATCH)
        self.allowed, self.waiting = asyncio.Event(), asyncio.Event()

    async def read_stream(self, stream: str, version: int) -> Sequence[RecordedEvent]:
        events = await super().read_stream(stream, version)
        self.waiting.set()
        await self.allowed.wait()
        return events

    async def deliver_only(self, feed: Feed, *events: RecordedEvent) -> set[str]:
        """Record and deliver events; return the parked streams, which are not read."""
        self.stream_events += events
        old = self.checkpoints.get(feed, NO_CHECKPOINT)
        self.checkpoints[feed] = ("epoch", old[1] + 1)
        return set(await self.engine.deliver_events(feed, events, old, self.checkpoints[feed]))


@pytest.fixture
def run(store: SagaStore) -> HeldRun:
    return HeldRun(store)


async def read_versions(run: SagaRun, stream: str, id_: str = "a") -> list[int]:
    received = (await run.read_sagas())[id_].state["received"]
    return [version for name, version in received if name == stream]


async def test_no_feed_waits_for_a_stream_that_is_read(run: HeldRun) -> None:
    run.stream_events += [paid("gap"), written("c", account=BROKEN_KEY)]
    assert await run.deliver_only(ACCOUNTS, paid("gap", version=2), paid("a")) == {"ledger.account.gap"}
    failing = await run.deliver_only(CHEQUES, written("c", account=BROKEN_KEY), written("d"))
    assert failing == {"ledger.cheque.c"}
    reading = asyncio.create_task(run.engine.deliver_parked(ACCOUNTS, "ledger.account.gap"))
    await asyncio.wait_for(run.waiting.wait(), 20)
    for version in range(2, 6):
        await run.deliver_only(ACCOUNTS, paid("a", version=version), paid("gap", version=version + 1))
        await run.deliver_only(CHEQUES, written("d", version=version), written("c", version=version))
    assert await read_versions(run, "ledger.account.a") == [1, 2, 3, 4, 5]
    assert await read_versions(run, "ledger.cheque.d") == [1, 2, 3, 4, 5]
    assert not reading.done()
    latest = await run.query("SELECT stream, latest FROM saga_parked_streams ORDER BY stream")
    assert [tuple(row) for row in latest] == [("ledger.account.gap", 6), ("ledger.cheque.c", 5)]
    run.allowed.set()
    await reading
    await run.replay(ACCOUNTS)
    assert await read_versions(run, "ledger.account.gap", "gap") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("own", [True, False], ids=["own stream", "other stream"])
async def test_events_that_arrive_while_a_stream_is_read_are_delivered_once_in_order(
    run: HeldRun, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    if own:
        feed, stream, id_ = ACCOUNTS, "ledger.account.a", "a"
        events = [paid("a", version=version) for version in range(1, 61)]
        run.stream_events.append(events[0])  # the feed never brings it
    else:
        feed, stream, id_ = CHEQUES, "ledger.cheque.c", BROKEN_KEY
        events = [written("c", account=BROKEN_KEY, version=version) for version in range(1, 61)]
        await run.deliver_only(feed, events[0])
        monkeypatch.setattr(account_watch, "BROKEN_KEY", "")
    run.allowed.set()
    await run.deliver_only(feed, events[1])
    done = asyncio.Event()

    async def deliver_parked() -> None:
        while not done.is_set():
            await run.engine.deliver_parked(feed, stream)
            await asyncio.sleep(chance.choice([0, 0.002]))

    async with asyncio.TaskGroup() as group:
        for _ in range(2):  # two managers
            group.create_task(deliver_parked())
        at = 2
        while at < len(events):
            count = chance.randint(1, 3)
            await run.deliver_only(feed, *events[at : at + count])
            at += count
        done.set()
    await run.replay(feed)
    assert await read_versions(run, stream, id_) == list(range(1, 61))
    assert await run.query("SELECT * FROM saga_parked_streams") == []


async def test_a_stream_parked_by_an_earlier_release_is_read_to_its_end(
    run: HeldRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.allowed.set()
    await run.deliver_only(CHEQUES, *(written("c", account=BROKEN_KEY, version=n) for n in range(1, 12)))
    await run.query("UPDATE saga_parked_streams SET latest = 0")
    monkeypatch.setattr(account_watch, "BROKEN_KEY", "")
    await run.replay(CHEQUES)
    assert await read_versions(run, "ledger.cheque.c", BROKEN_KEY) == list(range(1, 12))
    assert await run.query("SELECT * FROM saga_parked_streams") == []


async def test_a_gap_before_a_message_that_was_removed_is_forgotten(run: HeldRun) -> None:
    run.allowed.set()
    await run.deliver_only(ACCOUNTS, paid("a"))
    await run.deliver_only(ACCOUNTS, forged := paid("a", version=9))
    await run.replay(ACCOUNTS)
    (parked,) = await run.query("SELECT version, error FROM saga_parked_streams")
    assert tuple(parked) == (2, "EventsMissing: version 2 is missing")
    run.stream_events.remove(forged)  # the relay has recreated the stream
    await run.replay(ACCOUNTS)
    assert await run.query("SELECT * FROM saga_parked_streams") == []
    await run.deliver_only(ACCOUNTS, paid("a", version=2))
    assert await read_versions(run, "ledger.account.a") == [1, 2]


async def test_a_failing_slice_keeps_the_progress(run: HeldRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.allowed.set()
    events = [written("c", account="a", version=n) for n in range(1, 12)]
    events[0] = written("c", account=BROKEN_KEY)
    events[6] = written("c", account="still-broken", version=7)
    await run.deliver_only(CHEQUES, *events)
    monkeypatch.setattr(account_watch, "BROKEN_KEY", "still-broken")
    await run.replay(CHEQUES)
    assert await read_versions(run, "ledger.cheque.c") == [2, 3, 4, 5, 6]
    (parked,) = await run.query("SELECT version, latest, error FROM saga_parked_streams")
    assert (parked.version, parked.latest) == (7, 11)
    assert split_place(parked.error)[0] == "RuntimeError: the key is broken"
    monkeypatch.setattr(account_watch, "BROKEN_KEY", "")
    await run.replay(CHEQUES)
    assert await read_versions(run, "ledger.cheque.c") == [2, 3, 4, 5, 6, 8, 9, 10, 11]


async def test_a_manager_killed_in_a_slice_repeats_and_loses_nothing(run: HeldRun, database_url: str) -> None:
    """Ends the manager's connections at random moments, as its death does."""
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    run.allowed.set()
    events = [paid("a", version=n) for n in range(1, 201)]
    run.stream_events += events[:-1]
    (parked,) = await run.deliver_only(ACCOUNTS, events[-1])  # all events before it are missing
    killer = await asyncpg.connect(database_url)
    for _ in range(10):
        replay = asyncio.create_task(run.replay(ACCOUNTS, [parked]))
        await asyncio.sleep(chance.uniform(0.0, 0.03))  # the moment of the kill, not a wait
        await killer.execute(END_OTHER_CONNECTIONS)
        replay.cancel()
        await asyncio.gather(replay, return_exceptions=True)
    await killer.close()
    await until(lambda: is_replayed(run, parked))
    assert await read_versions(run, "ledger.account.a") == list(range(1, 201))


async def is_replayed(run: HeldRun, stream: str) -> bool:
    try:
        await run.replay(ACCOUNTS, [stream])
    except Exception:  # the pool still has connections that were ended
        return False
    return True


async def test_many_events_of_a_failing_stream_cause_few_attempts(
    run: HeldRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    deliver_parked = Engine.deliver_parked

    async def count(engine: Engine, feed: Feed, stream: str) -> Progress:
        nonlocal attempts
        attempts += 1
        return await deliver_parked(engine, feed, stream)

    monkeypatch.setattr(Engine, "deliver_parked", count)
    run.allowed.set()
    leases: Any = type("AllLeases", (), {"partitions": frozenset(ALL_PARTITIONS)})
    replayer, stopping = StreamReplayer(run.engine, leases), asyncio.Event()
    task = asyncio.create_task(replayer.run(stopping))
    for version in range(1, 101):
        parked = await run.deliver_only(ACCOUNTS, paid("a", version=version, amount=BROKEN))
        replayer.request(ACCOUNTS, parked)
    await until(lambda: attempts > 0)
    stopping.set()
    await task
    assert attempts < 20
    assert "version 1 failed" in (await run.read_sagas())["a"].blocked_reason


@pytest.mark.long
@pytest.mark.parametrize("count", [40_000])
async def test_a_long_stream_in_jetstream_is_read_in_slices(
    store: SagaStore, nats_url: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Each slice continues where the previous one ended; a stream recreated meanwhile is searched again."""
    seeks = 0
    seek = SubjectReader.seek

    async def count_seeks(reader: SubjectReader, version: int) -> None:
        nonlocal seeks
        seeks += 1
        await seek(reader, version)

    monkeypatch.setattr(SubjectReader, "seek", count_seeks)
    events = [written("c", account=f"a-{n % 100}", version=n) for n in range(1, count + 1)]
    others = [written(f"other-{n}") for n in range(500)]
    async with projection_run.publisher(nats_url) as publisher:
        await publisher.create()
        await publish_all(publisher, [*others, *events])
        read_stream = read_stream_from(publisher.connection)
        version, versions, recreated = 1, list[int](), False
        while batch := await read_stream("ledger.cheque.c", version):
            versions += [event.version for event in batch]
            version = versions[-1] + 1
            if not recreated and version > count // 2:
                recreated = True
                await publisher.delete()
                await publisher.create()
                await publish_all(publisher, [*events, *others])  # later events at the same sequences
    assert versions == list(range(1, count + 1))
    assert seeks <= 3, "at the start, after the recreation, and at the end"
