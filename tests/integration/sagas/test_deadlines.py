"""Deadlines are rows; an instance begins when one is due, and nothing is lost between the two."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from diptych.inventory.v1 import command_service_pb2 as commands

from contracts.envelope import RecordedEvent
from process_manager.deadlines.statements import WRITE
from process_manager.dispatch.step_client import StepReply
from process_manager.dispatch.timer_dispatcher import TimerDispatcher
from process_manager.postgres.due_work import NO_CHECKPOINT, CheckpointConflict, DueTimer, Feed
from process_manager.postgres.late_pauses import LatePauses
from process_manager.postgres.store import SagaStore
from process_manager.sagas.deadlines import DEADLINE, Expiry
from process_manager.sagas.inventory import RESERVATIONS
from tests.support.builders.reservations import ended, made
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun
from tests.support.harness.waiting import until

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FAR = datetime.now(UTC) + timedelta(days=1)
FEED = Feed(RESERVATIONS.name, "inventory.reservation", 0)


@pytest.fixture
async def run(store: SagaStore) -> AsyncIterator[SagaRun]:
    run = SagaRun(store, RESERVATIONS)
    yield run
    await run.deadlines.close()


async def read_deadlines(run: SagaRun) -> set[str]:
    return {row.id for row in await run.query("SELECT id FROM saga_deadlines")}


async def fire(run: SagaRun) -> None:
    """Fire what is due and whose turn it is."""
    leases: Any = type("AllLeases", (), {"partitions": frozenset(ALL_PARTITIONS)})
    preceding = run.create_preceding()
    dispatcher = TimerDispatcher(run.engine, run.store, leases, preceding, run.deadlines)
    await dispatcher._fire_due_timers()
    await asyncio.gather(*dispatcher._firing.values())


async def test_a_deadline_is_a_row_until_an_event_ends_it(run: SagaRun) -> None:
    await run.deliver(made("a", FAR), made("b", FAR), made("c", FAR), ended("c", 2))
    assert await read_deadlines(run) == {"a", "b"}
    await run.deliver(ended("a", 2))
    await run.deliver(ended("a", 3), ended("c", 3))
    assert await read_deadlines(run) == {"b"}
    assert await run.read_sagas() == {}
    assert await run.store.read_parked(FEED) == []


async def test_a_deadline_that_is_due_begins_an_instance_that_sends_its_step(run: SagaRun) -> None:
    await run.deliver(made("a", NOON), made("b", FAR))
    await fire(run)
    assert await read_deadlines(run) == {"b"}
    (row,) = (await run.read_sagas()).values()
    assert (row.id, row.version, row.status, row.correlation_id) == ("a", 1, "EXPIRING", "c-1")
    (step,) = await run.read_due_steps()
    assert commands.ExpireReservationRequest.FromString(step.request).reservation_id == "a"
    cause = ("c-1", "inventory.reservation.a@1", made("a", NOON).metadata["traceparent"])
    assert (step.correlation_id, step.causation_id, step.traceparent) == cause
    await fire(run)
    assert len(await run.query("SELECT * FROM saga_steps")) == 1
    await run.engine.record_reply(step, StepReply())
    await run.deliver(ended("a", 2))
    (row,) = (await run.read_sagas()).values()
    assert (row.version, row.status, row.ended) == (2, "OVER", True)


async def test_an_expiry_that_is_rejected_is_tried_again_and_ends_with_the_event(run: SagaRun) -> None:
    await run.deliver(made("a", NOON))
    await fire(run)
    (step,) = await run.read_due_steps()
    await run.engine.record_reply(step, StepReply(reason="RESERVATION_NOT_EXPIRED"))
    (timer,) = await run.query("SELECT name FROM saga_timers")
    assert timer.name == DEADLINE
    await run.deliver(ended("a", 2))
    assert not await run.query("SELECT * FROM saga_timers")
    assert (await run.read_sagas())["a"].status == "OVER"


def break_begin(run: SagaRun, break_: Any) -> None:
    """Let the saga begin the instance `bad` with what `break_` returns."""
    saga = run.deadlines.sagas[RESERVATIONS.name]

    def begin(id_: str, due_at: datetime) -> Any:
        return break_() if id_ == "bad" else saga.deadline.begin(id_, due_at)

    broken = replace(saga, deadline=replace(saga.deadline, begin=begin))
    run.deadlines._instances._sagas = {RESERVATIONS.name: broken}


@pytest.mark.parametrize(
    "break_",
    [lambda: 1 / 0, lambda: Expiry("bad\0"), lambda: Expiry("\ud800")],
    ids=["raises", "NUL", "surrogate"],
)
async def test_a_deadline_that_cannot_begin_delays_no_other(run: SagaRun, break_: Any) -> None:
    await run.deliver(made("a", NOON), made("bad", NOON), made("z", NOON))
    break_begin(run, break_)
    await fire(run)
    assert {id_: row.status for id_, row in (await run.read_sagas()).items()} == {
        "a": "EXPIRING",
        "z": "EXPIRING",
    }
    (row,) = await run.query("SELECT id, postponed_to FROM saga_deadlines")
    assert row.id == "bad"
    assert row.postponed_to is not None


async def test_an_instance_that_postgresql_refuses_delays_no_other(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "process_manager.deadlines.instances.to_json",
        lambda state: '"\\u0000"' if state.id == "bad" else "{}",
    )
    await run.deliver(made("a", NOON), made("bad", NOON), made("z", NOON))
    due = await run.deadlines.read_due(ALL_PARTITIONS, 10)
    assert {timer.id for timer in await run.deadlines.begin_instances(due)} == {"a", "z"}
    assert await run.deadlines.read_due(ALL_PARTITIONS, 10) == []
    assert await read_deadlines(run) == {"bad"}


async def test_a_deadline_that_postgresql_refuses_blocks_its_instance_alone(run: SagaRun) -> None:
    feeds = [Feed(RESERVATIONS.name, "inventory.reservation", number) for number in range(5)]
    for feed in feeds:
        await run.deadlines.deliver_events(feed, [], NO_CHECKPOINT, ("epoch", 1))

    def make(number: int) -> list[RecordedEvent]:
        event = made(f"r-{number}", FAR)
        bad = msgspec.structs.replace(event, metadata={"correlation_id": "\0"}) if number == 2 else event
        return [bad, made(f"beside-{number}", FAR)]

    deliveries = (
        run.deadlines.deliver_events(feed, make(feed.partition), ("epoch", 1), ("epoch", 2)) for feed in feeds
    )
    await asyncio.gather(*deliveries)
    await run.deadlines.deliver_events(feeds[2], [made("later", FAR)], ("epoch", 2), ("epoch", 3))
    rows = await run.read_sagas()
    assert {id_: row.blocked_reason for id_, row in rows.items() if row.blocked_reason} == {
        "r-2": rows["r-2"].failed_input
    }
    assert "version 1 cannot be stored" in rows["r-2"].failed_input
    assert await read_deadlines(run) | rows.keys() == {
        *(f"{name}-{number}" for name in ("r", "beside") for number in range(5)),
        "later",
    }


@pytest.mark.parametrize(
    "break_",
    [lambda: 1 / 0, lambda: Expiry("bad\0"), lambda: Expiry("\ud800")],
    ids=["raises", "NUL", "surrogate"],
)
async def test_a_deadline_that_cannot_begin_does_not_stop_its_feed(run: SagaRun, break_: Any) -> None:
    await run.deliver(*(made(id_, FAR) for id_ in ("a", "bad", "z")))
    break_begin(run, break_)
    newer = [
        msgspec.structs.replace(ended(id_, 2), type="diptych.inventory.v9.ReservationExtended")
        for id_ in ("bad", "z")
    ]
    await run.deliver(*newer, ended("a", 2), made("later", FAR))
    rows = await run.read_sagas()
    assert rows.keys() == {"bad", "z"}
    assert all("ReservationExtended" in row.blocked_reason for row in rows.values())
    assert await read_deadlines(run) == {"bad", "later"}
    assert await run.deadlines.read_due(ALL_PARTITIONS, 10) == []  # it was not postponed to an earlier time
    timers = await run.query("SELECT id, due_at FROM saga_timers WHERE stopped_at IS NOT NULL")
    assert {tuple(timer) for timer in timers} == {("bad", FAR), ("z", FAR)}
    assert not await run.query("SELECT * FROM saga_parked_streams")
    await run.query("UPDATE saga_deadlines SET due_at = now() WHERE id = 'bad'")
    await run.deadlines.begin_instances(await run.deadlines.read_due(ALL_PARTITIONS, 10))
    assert await read_deadlines(run) == {"later"}  # the instance has a timer of its own


async def test_a_caller_that_is_cancelled_ends_no_statement_of_another(run: SagaRun) -> None:
    await run.deliver(made("a", NOON))
    running = asyncio.create_task(run.deadlines._session.fetch("SELECT pg_sleep(0.3) IS NULL AS slept"))
    await until(run.deadlines._session._lock.locked)
    waiting = asyncio.create_task(run.deadlines.read_due(ALL_PARTITIONS, 10))
    await asyncio.sleep(0)
    waiting.cancel()
    assert len(await running) == 1
    assert waiting.cancelled()
    assert len(await run.deadlines.read_due(ALL_PARTITIONS, 10)) == 1


async def test_a_deadline_waits_for_the_events_that_precede_it(run: SagaRun) -> None:
    await run.deliver(made("a", NOON))
    run.stream_events.append(late := ended("a", 2))  # in the stream, and not delivered yet
    await fire(run)
    await run.query("UPDATE saga_deadlines SET postponed_to = NULL")
    await fire(run)
    assert await read_deadlines(run) == {"a"}
    await run.redeliver(late)
    await fire(run)
    assert (await read_deadlines(run), await run.read_sagas()) == (set(), {})


async def test_a_lost_event_is_read_from_the_stream(run: SagaRun) -> None:
    await run.deliver(made("a", FAR), made("b", FAR))
    run.stream_events += [made("lost-1", FAR), *(ended(id_, 2) for id_ in ("a", "lost-1"))]
    await run.deliver(ended("a", 3))  # version 2 is missing
    await run.redeliver(ended("lost-1", 2))  # version 1 is missing
    rows = await run.read_sagas()
    assert {id_: (row.version, row.status) for id_, row in rows.items()} == {
        "a": (3, "OVER"),
        "lost-1": (2, "OVER"),
    }
    assert await read_deadlines(run) == {"b"}


async def test_a_lost_event_that_the_stream_lacks_is_reported(run: SagaRun) -> None:
    await run.deliver(ended("a", 2), made("b", FAR))
    (parked,) = await run.query("SELECT stream, version FROM saga_parked_streams")
    assert tuple(parked) == ("inventory.reservation.a", 1)
    assert await read_deadlines(run) == {"b"}


async def test_an_event_of_an_unknown_type_stops_the_timer_of_its_instance_alone(run: SagaRun) -> None:
    await run.deliver(made("a", FAR), made("b", FAR))
    newer = msgspec.structs.replace(ended("a", 2), type="diptych.inventory.v9.ReservationExtended")
    await run.deliver(newer, ended("b", 2))
    (row,) = (await run.read_sagas()).values()
    assert (row.id, row.version) == ("a", 1)
    assert "ReservationExtended" in row.blocked_reason
    (timer,) = await run.query("SELECT due_at, stopped_at FROM saga_timers")
    assert timer.due_at == FAR
    assert timer.stopped_at is not None
    assert await read_deadlines(run) == set()


async def test_events_are_delivered_once_from_a_checkpoint(run: SagaRun) -> None:
    await run.deliver(made("a", FAR))
    old = run.checkpoints[FEED]
    await run.deliver(ended("a", 2))
    with pytest.raises(CheckpointConflict):
        await run.deadlines.deliver_events(FEED, [made("a", FAR)], old, ("epoch", 9))
    assert await read_deadlines(run) == set()


async def test_a_new_epoch_delivers_everything_again_to_the_same_rows(run: SagaRun) -> None:
    history = [made("a", FAR), made("b", FAR), ended("a", 2), made("c", NOON), ended("a", 3)]
    await run.deliver(*history)
    await fire(run)
    rows = await run.read_sagas()
    for event in history:
        await run.redeliver(event)
    assert await read_deadlines(run) == {"b"}
    assert await run.read_sagas() == rows
    assert not await run.query("SELECT * FROM saga_parked_streams")


async def test_feeds_that_arrive_together_share_a_statement(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = [Feed(RESERVATIONS.name, "inventory.reservation", number) for number in range(10)]
    for feed in feeds:
        await run.deadlines.deliver_events(feed, [made(f"r-{feed.partition}", FAR)], ("", 0), ("epoch", 1))
    statements: list[str] = []
    fetch = run.deadlines._session.fetch

    async def count(statement: str, *parameters: Any) -> Any:
        statements.append(statement)
        return await fetch(statement, *parameters)

    monkeypatch.setattr(run.deadlines._session, "fetch", count)
    results = await asyncio.gather(
        *(
            run.deadlines.deliver_events(feed, [ended(f"r-{feed.partition}", 2)], ("epoch", 1), ("epoch", 2))
            for feed in feeds[:-1]
        ),
        run.deadlines.deliver_events(feeds[-1], [], ("epoch", 7), ("epoch", 8)),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [*[tuple] * 9, CheckpointConflict]
    assert await read_deadlines(run) == {"r-9"}
    statements.clear()
    await asyncio.gather(
        *(run.deadlines.deliver_events(feed, [], ("epoch", 2), ("epoch", 3)) for feed in feeds[:-1])
    )
    assert len(statements) <= 2
    assert set(statements) == {WRITE}


@pytest.mark.parametrize("rounds", [5, pytest.param(60, marks=pytest.mark.long)])
async def test_a_firing_and_the_event_that_ends_the_deadline_race(run: SagaRun, rounds: int) -> None:
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    other = SagaRun(run.store, RESERVATIONS)
    for round_ in range(rounds):
        ids = [f"r-{round_}-{number}" for number in range(20)]
        await run.deliver(*(made(id_, NOON) for id_ in ids))
        due = [DueTimer(RESERVATIONS.name, id_, DEADLINE, NOON) for id_ in ids]

        async def begin(deadlines: Any, timers: list[DueTimer]) -> None:
            await asyncio.sleep(chance.uniform(0, 0.004))  # the moment of the race
            for timer in await deadlines.begin_instances(timers):
                await run.engine.fire_timer(timer)

        events = [ended(id_, 2) for id_ in ids]
        run.stream_events += events
        await asyncio.gather(
            begin(run.deadlines, due[:15]), begin(other.deadlines, due[5:]), run.redeliver(*events)
        )
        assert await read_deadlines(run) == set()
        rows = await run.read_sagas()
        assert {(row.version, row.status) for row in rows.values()} <= {(2, "OVER")}
        assert not await run.query("SELECT * FROM saga_timers")
        assert not await run.query("SELECT * FROM saga_parked_streams")
    steps = await run.query("SELECT id, count(*) FROM saga_steps GROUP BY id HAVING count(*) > 1")
    assert not steps
    await other.deadlines.close()


async def test_an_instance_of_the_earlier_release_ends_as_it_began(run: SagaRun) -> None:
    await run.engine.deliver_events(FEED, [made("old", NOON), made("ended", NOON)], ("", 0), ("epoch", 1))
    run.checkpoints[FEED] = ("epoch", 1)
    await run.deliver(ended("ended", 2), made("new", FAR))
    await fire(run)
    rows = await run.read_sagas()
    assert {id_: row.status for id_, row in rows.items()} == {"old": "EXPIRING", "ended": "OVER"}
    assert await read_deadlines(run) == {"new"}


async def test_a_row_beside_an_instance_of_the_earlier_release_vanishes(run: SagaRun) -> None:
    await run.deliver(made("a", NOON))
    await run.engine.deliver_events(FEED, [made("a", NOON), ended("a", 2)], ("epoch", 1), ("epoch", 2))
    await fire(run)
    assert await read_deadlines(run) == set()
    assert (await run.read_sagas())["a"].status == "OVER"
    assert not await run.query("SELECT * FROM saga_steps")


async def test_a_pause_that_a_clock_ahead_has_written_ends(run: SagaRun) -> None:
    await run.deliver(made("a", NOON))
    await run.query("UPDATE saga_deadlines SET postponed_to = now() + interval '3 hours'")
    assert not await run.deadlines.read_due(ALL_PARTITIONS, 10)
    await LatePauses(run.store).end_all()
    assert len(await run.deadlines.read_due(ALL_PARTITIONS, 10)) == 1
