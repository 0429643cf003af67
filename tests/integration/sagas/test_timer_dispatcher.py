"""The dispatcher sleeps until a timer is due, and wakes for those that are set or leased meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import monotonic
from typing import Any

import asyncpg
import pytest

from process_manager.deadlines.shared_statement import DeadlinesNotWritten
from process_manager.dispatch import timer_dispatcher, timer_rests
from process_manager.dispatch.step_client import StepReply
from process_manager.dispatch.timer_dispatcher import TimerDispatcher
from process_manager.groups import instance_inputs
from process_manager.leases import Leases
from process_manager.postgres.due_work import NO_CHECKPOINT, DueTimer, Feed
from process_manager.postgres.store import SagaStore
from process_manager.sagas.inventory import RESERVATIONS
from tests.support.builders.reservations import ended, made
from tests.support.harness.log_lines import own_lines
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, written
from tests.support.harness.waiting import until
from tests.support.ledger.sagas import COLLECTION

FEED = Feed(RESERVATIONS.name, "inventory.reservation", 0)


@pytest.fixture
async def run(store: SagaStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SagaRun]:
    monkeypatch.setattr(timer_dispatcher, "MAX_INTERVAL", 60.0)
    run = SagaRun(store, RESERVATIONS)
    yield run
    await run.deadlines.close()


class Partitions(Leases):
    """Leases that the test gives."""

    partitions = frozenset[int]()

    def give(self) -> None:
        self.partitions = frozenset(ALL_PARTITIONS)
        for listener in self._listeners:
            listener()


@asynccontextmanager
async def dispatching(run: SagaRun) -> AsyncIterator[tuple[Partitions, list[int]]]:
    """Run a dispatcher; yield its leases and the numbers of timers that its polls found."""
    leases, stopping, polls = Partitions(run.store, "inventory"), asyncio.Event(), list[int]()
    preceding = run.create_preceding()
    dispatcher = TimerDispatcher(run.engine, run.store, leases, preceding, run.deadlines)
    fire: Any = dispatcher._fire_due_timers

    async def count() -> int:
        polls.append(await fire())
        return polls[-1]

    dispatcher._fire_due_timers = count  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run(stopping))
        try:
            await until(lambda: len(polls) > 0)
            yield leases, polls
        finally:
            stopping.set()


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def count_steps(run: SagaRun, count: int) -> bool:
    return len(await run.query("SELECT 1 FROM saga_steps")) == count


async def count_timers(run: SagaRun, count: int) -> bool:
    return len(await run.query("SELECT 1 FROM saga_timers")) == count


async def test_deadlines_and_timers_fire_when_they_are_due(run: SagaRun) -> None:
    async with dispatching(run) as (leases, polls):
        leases.give()
        await run.deliver(made("later", in_seconds(3600)))
        await run.deliver(made("soon", in_seconds(0.5)), made("sooner", in_seconds(0.2)))
        await until(lambda: count_steps(run, 2), 10)
        assert len(polls) < 30


async def test_a_timer_that_a_reaction_sets_fires_when_it_is_due(run: SagaRun) -> None:
    async with dispatching(run) as (leases, _):
        leases.give()
        await run.deliver(made("soon", in_seconds(0.1)))
        await until(lambda: count_steps(run, 1), 10)
        (step,) = await run.read_due_steps()
        await run.engine.record_reply(step, StepReply(reason="RESERVATION_NOT_EXPIRED"))
        await until(lambda: count_steps(run, 2), 10)


async def test_timers_of_partitions_that_are_leased_fire_at_once(run: SagaRun) -> None:
    await run.deliver(made("due", in_seconds(-1)))
    async with dispatching(run) as (leases, _):
        assert not await run.query("SELECT 1 FROM saga_steps")
        leases.give()
        await until(lambda: count_steps(run, 1), 10)


async def test_a_dispatcher_without_due_timers_does_not_poll(run: SagaRun) -> None:
    await run.deliver(made("later", in_seconds(3600)))
    async with dispatching(run) as (leases, polls):
        leases.give()
        await until(lambda: len(polls) == 2)
        for number in range(20):
            await run.deliver(made(f"even-later-{number}", in_seconds(7200)))
        assert len(polls) <= 3


async def test_a_timer_whose_transaction_is_cut_fires_again_at_once(run: SagaRun) -> None:
    store: Any = run.engine._commit._store
    write = store.write

    async def cut_and_write(units: Any) -> Any:
        store.write = write
        store._connection[1].terminate()
        return await write(units)

    await run.deliver(made("due", in_seconds(-1)))
    store.write = cut_and_write
    with own_lines() as lines:
        async with dispatching(run) as (leases, _):
            leases.give()
            await until(lambda: count_steps(run, 1), 5)
    assert lines.of("Timer postponed")
    assert not lines.of("Timer delivery failed")


LOCKS = {
    "a timer": "SELECT FROM saga_timers WHERE id = 'locked-1' FOR UPDATE",
    "an instance": "SELECT FROM sagas WHERE id = 'locked-1' FOR UPDATE",
    "instances of more timers than a poll reads": "SELECT FROM sagas WHERE id LIKE 'locked-%' FOR UPDATE",
}


@pytest.mark.parametrize("lock", LOCKS)
async def test_a_locked_timer_delays_no_other(
    run: SagaRun, database_url: str, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(instance_inputs, "MAX_LOST_RACES_OF_TIMERS", 1_000_000)  # it never gives up
    count = timer_dispatcher.MAX_BATCH + 20
    events = [made(f"locked-{number}", in_seconds(3600)) for number in range(count)]
    await run.engine.deliver_events(FEED, events, NO_CHECKPOINT, ("epoch", 1))
    run.checkpoints[FEED] = ("epoch", 1)
    await run.expire_timers()
    async with locking(database_url, LOCKS[lock]), dispatching(run) as (leases, _):
        leases.give()
        await run.deliver(made("soon", in_seconds(0.5)))
        await until(lambda: has_steps(run, "soon"), 30)
        assert not await run.query("SELECT 1 FROM saga_steps WHERE id = 'locked-1'")
    async with dispatching(run) as (leases, _):
        leases.give()
        await until(lambda: count_steps(run, count + 1), 30)


async def test_more_locked_timers_than_places_delay_no_other(
    run: SagaRun, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer_dispatcher, "MAX_BATCH", 10)
    monkeypatch.setattr(timer_dispatcher, "MAX_FIRING", 30)
    for name in ("REST", "MAX_REST"):
        monkeypatch.setattr(timer_rests, name, 0.02)  # the locked ones come again and again
    deliver = run.engine.deliver_events
    locked = [made(f"locked-{number}", in_seconds(3600)) for number in range(90)]
    await deliver(FEED, locked, NO_CHECKPOINT, ("epoch", 1))
    await run.expire_timers()
    async with (
        locking(database_url, "SELECT FROM sagas WHERE id LIKE 'locked-%' FOR UPDATE"),
        dispatching(run) as (leases, _),
    ):
        leases.give()
        await deliver(FEED, [made("soon", in_seconds(0.5))], ("epoch", 1), ("epoch", 2))
        await until(lambda: has_steps(run, "soon"), 10)


async def test_a_second_timer_of_an_instance_fires_when_it_is_due(
    store: SagaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer_dispatcher, "MAX_INTERVAL", 60.0)
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"))
    (step,) = await run.read_due_steps()
    await run.engine.record_reply(step, StepReply(reason="WORTHLESS"))
    await run.expire_timers()
    await run.query(
        "INSERT INTO saga_timers (saga, id, name, partition, due_at)"
        " SELECT saga, id, 'second', partition, now() + interval '0.3 seconds' FROM saga_timers"
    )
    async with dispatching(run) as (leases, _):
        leases.give()
        await until(lambda: count_timers(run, 0), 10)
    await run.deadlines.close()


async def test_a_locked_timer_that_waits_for_a_reply_is_read_less_and_less_often(
    store: SagaStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read_due_timers = list[float](), store.read_due_timers

    async def note_reads(*arguments: Any) -> list[DueTimer]:
        timers = await read_due_timers(*arguments)
        reads.extend(monotonic() for _ in timers)
        return timers

    monkeypatch.setattr(store, "read_due_timers", note_reads)
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"))
    await run.expire_timers()
    async with locking(database_url, "SELECT FROM saga_timers FOR UPDATE"), dispatching(run) as (leases, _):
        leases.give()
        await until(lambda: len(reads) > 2, 10)
    await run.deadlines.close()
    rests = [end - begin for begin, end in pairwise(reads)]
    assert rests[1] >= 2 * timer_rests.REST


async def test_a_locked_deadline_delays_no_other(run: SagaRun, database_url: str) -> None:
    count, tries, begin = timer_dispatcher.MAX_BATCH + 20, list[float](), run.deadlines.begin_instances

    async def note_tries(due: Collection[DueTimer]) -> list[DueTimer]:
        tries.extend(monotonic() for timer in due if timer.id == "locked-1")
        return await begin(due)

    run.deadlines.begin_instances = note_tries  # type: ignore[method-assign]
    await run.deliver(*(made(f"locked-{number}", in_seconds(-1)) for number in range(count)))
    async with (
        locking(database_url, "SELECT FROM saga_deadlines FOR UPDATE"),
        dispatching(run) as (leases, _),
    ):
        leases.give()
        await run.deliver(made("soon", in_seconds(0.5)))
        await until(lambda: has_steps(run, "soon"), 30)
        await until(lambda: len(tries) > 2, 30)
        rests = [end - begin for begin, end in pairwise(tries)]
        assert rests[0] >= timer_rests.REST  # a slow machine makes them longer
        assert rests[1] >= 2 * timer_rests.REST
    async with dispatching(run) as (leases, _):
        leases.give()
        await until(lambda: count_steps(run, count + 1), 30)


async def test_a_locked_deadline_delays_the_events_of_its_own_feed_alone(
    run: SagaRun, database_url: str
) -> None:
    other = Feed(RESERVATIONS.name, "inventory.reservation", 1)
    await run.deadlines.deliver_events(other, [], NO_CHECKPOINT, ("epoch", 1))
    await run.deliver(made("locked", in_seconds(3600)))
    async with locking(database_url, "SELECT FROM saga_deadlines FOR UPDATE"):
        at = run.checkpoints[FEED]
        with pytest.raises(DeadlinesNotWritten):
            await run.deadlines.deliver_events(FEED, [ended("locked", 2)], at, ("epoch", 2))
        async with asyncio.timeout(8):
            events = [made("other", in_seconds(3600))]
            await run.deadlines.deliver_events(other, events, ("epoch", 1), ("epoch", 2))
    await run.deliver(ended("locked", 2))
    assert [row.id for row in await run.query("SELECT id FROM saga_deadlines")] == ["other"]


async def test_a_deadline_that_another_session_inserts_delays_its_own_feed_alone(
    run: SagaRun, database_url: str
) -> None:
    feeds = [Feed(RESERVATIONS.name, "inventory.reservation", number) for number in range(4)]
    for feed in feeds:
        await run.deadlines.deliver_events(feed, [], NO_CHECKPOINT, ("epoch", 1))
    insert = (
        "INSERT INTO saga_deadlines (saga, id, partition, due_at, set_at, correlation_id)"
        " VALUES ('inventory.reservation_deadline', 'r-2', 0, now(), now(), '')"
    )
    async with locking(database_url, insert), asyncio.timeout(10):
        results = await asyncio.gather(
            *(
                run.deadlines.deliver_events(
                    feed, [made(f"r-{feed.partition}", in_seconds(3600))], ("epoch", 1), ("epoch", 2)
                )
                for feed in feeds
            ),
            return_exceptions=True,
        )
    assert [type(each) for each in results] == [tuple, tuple, DeadlinesNotWritten, tuple]


@asynccontextmanager
async def locking(database_url: str, statement: str) -> AsyncIterator[None]:
    """Hold a lock, as a person does whose transaction is left open."""
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute(statement)
            yield
    finally:
        await holder.close()


async def has_steps(run: SagaRun, id_: str) -> bool:
    return len(await run.query(f"SELECT 1 FROM saga_steps WHERE id = '{id_}'")) > 0
