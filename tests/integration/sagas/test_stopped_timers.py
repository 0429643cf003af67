"""The timers of an instance that lacks an event are stopped, and fire later by as long as they were."""

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from contracts.envelope import RecordedEvent
from process_manager.dispatch.step_client import StepReply
from process_manager.inspection import Inspection
from process_manager.leases import Leases
from process_manager.postgres.due_work import DueTimer
from process_manager.postgres.store import SagaStore
from process_manager.saga import Input, Reaction, StepSucceeded, Timer
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, cashed, recorded_as, written
from tests.support.ledger.sagas import BROKEN, COLLECTION, Collection
from tests.support.ledger.stubs import commands, events

LATER = timedelta(hours=5)


@pytest.fixture
async def run(store: SagaStore) -> SagaRun:
    """A run with the timers of two cheques, due in an hour."""
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"), written("d"))
    return run


async def read_timers(run: SagaRun) -> dict[str, Any]:
    return {row.id: row for row in await run.query("SELECT * FROM saga_timers")}


async def read_due(run: SagaRun) -> dict[str, DueTimer]:
    timers = await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
    return {timer.id: timer for timer in timers}


async def let_pass(run: SagaRun, time: timedelta) -> None:
    """Let all times of timers be earlier, as if this time had passed."""
    await run.query(
        f"UPDATE saga_timers SET due_at = due_at - interval '{time}',"
        f" stopped_at = stopped_at - interval '{time}'"
    )


def of_unknown_type(event: RecordedEvent) -> RecordedEvent:
    return replace(event, type="acme.ledger.v1.ChequeLost")


def undecodable(event: RecordedEvent) -> RecordedEvent:
    return replace(event, data=b"\xff\xff")


def failing(event: RecordedEvent) -> RecordedEvent:
    return written(event.stream.rpartition(".")[2], BROKEN, event.version)


@pytest.mark.parametrize("damage", [of_unknown_type, undecodable, failing])
async def test_the_timers_of_an_instance_that_fails_on_an_event_are_stopped_until_it_does_not(
    run: SagaRun, damage: Callable[[RecordedEvent], RecordedEvent]
) -> None:
    before = (await read_timers(run))["c"].due_at
    event = cashed("c")
    await run.deliver(damage(event))
    await let_pass(run, LATER)
    assert (await read_due(run)).keys() == {"d"}
    run.stream_events[-1] = event  # as a release that can read it sees it
    await run.engine.retry(COLLECTION.name, "c", "ada")
    await assert_later(run, before - LATER)


async def assert_later(run: SagaRun, due_at: datetime) -> None:
    """Assert that the timer of c is not stopped, and fires LATER than this."""
    timer = (await read_timers(run))["c"]
    assert timer.stopped_at is None
    assert timedelta() <= timer.due_at - due_at - LATER < timedelta(seconds=60)


async def test_a_timer_is_stopped_while_the_row_cannot_be_read(run: SagaRun) -> None:
    before = (await read_timers(run))["c"].due_at
    ((state,),) = await run.query("SELECT state::text FROM sagas WHERE id = 'c'")
    await run.query("UPDATE sagas SET state = '[]' WHERE id = 'c'")
    await inspect(run)
    await let_pass(run, LATER)
    assert (await read_due(run)).keys() == {"d"}
    await run.query(f"UPDATE sagas SET state = '{state}' WHERE id = 'c'")
    await inspect(run)
    await assert_later(run, before - LATER)


async def inspect(run: SagaRun) -> None:
    leases = Leases(run.store, "ledger")
    await leases.renew()
    await Inspection(run.engine, run.store, leases).inspect_page()
    await leases.leave()


async def test_a_timer_is_stopped_while_its_own_stream_is_parked(run: SagaRun) -> None:
    before = (await read_timers(run))["c"].due_at
    missing, event = run.stream_events[:], cashed("c", 3)
    await run.deliver(event)  # version 2 is missing
    await let_pass(run, LATER)
    assert (await read_due(run)).keys() == {"d"}
    run.stream_events = [
        *missing,
        recorded_as("ledger.cheque.c", events.ChequeEndorsed(cheque_id="c"), 2),
        event,
    ]
    (feed,) = run.checkpoints
    await run.replay(feed)
    await assert_later(run, before - LATER)


def set_timer_late(collection: Collection, input_: Input) -> Reaction[Collection]:
    if isinstance(input_, StepSucceeded):
        return Reaction(collection, timers=[Timer("timeout", input_.at + LATER)])
    return COLLECTION.react(collection, input_)


@pytest.mark.parametrize("event", [of_unknown_type(cashed("c")), cashed("c", 3)], ids=["failing", "parked"])
async def test_a_timer_that_is_set_meanwhile_is_stopped_from_then_on(
    store: SagaStore, event: RecordedEvent
) -> None:
    run = SagaRun(store, dataclasses.replace(COLLECTION, react=set_timer_late))
    await run.deliver(written("c"))
    await run.deliver(event)
    await let_pass(run, LATER)
    (step,) = await run.read_due_steps()
    await run.engine.record_reply(step, StepReply(response=commands.CashChequeResponse()))
    timer = (await read_timers(run))["c"]
    assert timer.due_at - timer.stopped_at == LATER


async def test_a_timer_that_was_read_before_it_was_stopped_does_not_fire(run: SagaRun) -> None:
    await run.expire_timers()
    due = (await read_due(run))["c"]
    await run.deliver(of_unknown_type(cashed("c")))
    await run.engine.fire_timer(due)
    assert (await run.read_sagas())["c"].status == "CASHING"


async def test_operators_see_a_stopped_timer_move_on(run: SagaRun) -> None:
    await run.deliver(of_unknown_type(cashed("c")))
    await let_pass(run, LATER)
    details = await run.reader.find(COLLECTION.name, "c")
    assert details is not None
    (row,) = await run.query("SELECT due_at FROM saga_timers WHERE id = 'c'")
    assert details.timers["timeout"] - row.due_at >= LATER
