"""Another session holds a lock: inputs that need it wait, all others go on, and nothing counts as refused."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import asyncpg
import pytest

from contracts.envelope import RecordedEvent
from process_manager.dispatch.step_client import StepReply
from process_manager.groups.group_commit import RaceLost
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, DueTimer, Feed
from process_manager.postgres.store import SagaStore
from tests.support.harness.account_watch import ACCOUNT_WATCH
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, paid, written
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

CHEQUES = Feed(COLLECTION.name, "ledger.cheque", 0)
ACCOUNTS = Feed(ACCOUNT_WATCH.name, "ledger.account", 0)
HOLD = 1.0
"""Seconds, several times `lock_timeout`."""
CASES = {
    "a timer": ("UPDATE saga_timers SET postponed_to = now() WHERE id = 'c'", {"reply"}),
    "all timers": ("LOCK TABLE saga_timers IN SHARE MODE", {"reply", "event"}),  # as CREATE INDEX does
    "all steps": ("LOCK TABLE saga_steps IN SHARE MODE", {"reply", "event"}),
    "a checkpoint": (
        "UPDATE saga_checkpoints SET sequence = sequence WHERE saga = 'ledger.collection'",
        {"event"},
    ),
}


@pytest.mark.parametrize("lock", CASES)
async def test_a_lock_delays_the_inputs_that_need_it(store: SagaStore, database_url: str, lock: str) -> None:
    run, (statement, delayed) = SagaRun(store, COLLECTION, ACCOUNT_WATCH), CASES[lock]
    await run.deliver(written("c"))
    (cash,) = [step for step in await run.read_due_steps() if step.saga == COLLECTION.name]
    at = run.checkpoints[CHEQUES]
    holder = await asyncpg.connect(database_url)
    holding = holder.transaction()
    await holding.start()
    await holder.execute(statement)
    reply = run.engine.record_reply(cash, StepReply(response=commands.CashChequeResponse()))
    tasks = {"reply": start(reply), "event": start(follow(run, written("e"), at))}
    others = await deliver_others(run, HOLD)
    assert {name for name, task in tasks.items() if not task.done()} == delayed
    await holding.rollback()
    await holder.close()
    await asyncio.gather(*tasks.values())
    rows = await run.read_sagas()
    assert {id_: (row.status, row.failed_input) for id_, row in rows.items() if row.saga == CHEQUES.saga} == {
        "c": ("CASHED", ""),
        "e": ("CASHING", ""),
    }
    assert rows["b"].version == others > 0


async def follow(run: SagaRun, event: RecordedEvent, at: Checkpoint) -> None:
    """Deliver an event as its feed does: again until it is delivered."""
    while True:
        with suppress(RaceLost):
            await run.engine.deliver_events(CHEQUES, [event], at, (at[0], at[1] + 1))
            return


def start(input_: Awaitable[object]) -> asyncio.Future[object]:
    return asyncio.ensure_future(input_)


async def deliver_others(run: SagaRun, seconds: float) -> int:
    """Deliver events of another saga for a time, one after the other; return their number."""
    end, at, number = asyncio.get_running_loop().time() + seconds, NO_CHECKPOINT, 0
    while asyncio.get_running_loop().time() < end:
        number += 1
        new = ("epoch", number)
        async with asyncio.timeout(10):
            await run.engine.deliver_events(ACCOUNTS, [paid("b", number)], at, new)
        at = new
    print(f"{number} other events")
    return number


async def test_a_locked_timer_does_not_keep_others_from_being_postponed(
    store: SagaStore, database_url: str
) -> None:
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"), written("d"))
    await run.expire_timers()
    timers = await store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM saga_timers WHERE id = 'c' FOR UPDATE")
        async with asyncio.timeout(5):
            await store.postpone_timers(dict.fromkeys(timers, 60.0))
    await holder.close()
    due: list[DueTimer] = await store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
    assert [timer.id for timer in due] == ["c"]


async def test_a_locked_step_keeps_no_connection_from_the_others(store: SagaStore, database_url: str) -> None:
    run = SagaRun(store, COLLECTION)
    await run.deliver(*(written(f"c-{number}") for number in range(12)))  # more than there are connections
    steps = await run.read_due_steps()
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM saga_steps WHERE id <> 'c-0' FOR UPDATE")
        async with asyncio.timeout(5):
            postponed = await asyncio.gather(
                *(store.postpone_step(each, 60.0, "no answer") for each in steps)
            )
    await holder.close()
    assert [step.id for step, done in zip(steps, postponed, strict=True) if done] == ["c-0"]
    assert "c-0" not in {step.id for step in await run.read_due_steps()}
