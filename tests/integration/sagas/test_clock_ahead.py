"""Pauses written while PostgreSQL's clock was three hours ahead end once the clock is right."""

from typing import Any

import pytest

from process_manager.dispatch.step_dispatcher import UNREADABLE_PAUSE
from process_manager.postgres.late_pauses import LatePauses
from process_manager.postgres.store import SagaStore
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, written
from tests.support.ledger.sagas import COLLECTION

SAGAS = {COLLECTION.name}


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, COLLECTION)


async def test_a_step_that_is_due_in_three_hours_is_due_now(run: SagaRun) -> None:
    await run.deliver(written("c"))
    await run.query("UPDATE saga_steps SET due_at = now() + interval '3 hours'")
    assert not await read_due_steps(run)
    await LatePauses(run.store).end_all()
    assert len(await read_due_steps(run)) == 1


async def test_a_pause_of_the_longest_kind_lasts(run: SagaRun) -> None:
    await run.deliver(written("c"))
    (step,) = await read_due_steps(run)
    await run.store.postpone_step(step, UNREADABLE_PAUSE, "unreadable")
    await LatePauses(run.store).end_all()
    assert not await read_due_steps(run)


async def test_a_retry_of_a_timer_is_due_now_and_the_timer_keeps_its_time(run: SagaRun) -> None:
    await run.deliver(written("c"))
    await run.query(
        "INSERT INTO saga_timers (saga, id, name, partition, due_at, postponed_to) VALUES"
        f" ('{COLLECTION.name}', 'c', 'late', 0, now() - interval '1 second', now() + interval '3 hours'),"
        f" ('{COLLECTION.name}', 'c', 'future', 0, now() + interval '3 hours', NULL)"
    )
    assert not await read_due_timers(run)
    await LatePauses(run.store).end_all()
    assert [timer.name for timer in await read_due_timers(run)] == ["late"]


async def read_due_steps(run: SagaRun) -> list[Any]:
    return list(await run.store.read_due_steps(SAGAS, ALL_PARTITIONS, {}))


async def read_due_timers(run: SagaRun) -> list[Any]:
    return list(await run.store.read_due_timers(SAGAS, ALL_PARTITIONS, 10))
