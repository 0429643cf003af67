"""A group meets another manager, a locked row or a faulty input: the others of the group are committed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any

import asyncpg
import pytest

from process_manager.dispatch.step_client import StepReply
from process_manager.groups.group_commit import RaceLost
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres.due_work import NO_CHECKPOINT, CheckpointConflict, Feed
from process_manager.postgres.group_store import GroupStore
from process_manager.postgres.store import SagaStore
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN_KEY
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, paid, written
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

CHEQUES = Feed(COLLECTION.name, "ledger.cheque", 0)
OK = StepReply(response=commands.CashChequeResponse())


class InterruptedStore(GroupStore):
    """Lets another manager work between the reading of a group and its writing, once."""

    meanwhile: Callable[[], Awaitable[object]] | None = None
    statements = 0

    async def read(self, sagas: Any, inputs: Any, feeds: Any) -> Any:
        self.statements += 1
        return await super().read(sagas, inputs, feeds)

    async def write(self, units: Sequence[UnitOfWork]) -> set[int]:
        self.statements += 1
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            await meanwhile()
        return await super().write(units)


@pytest.fixture
async def run(store: SagaStore) -> SagaRun:
    """A run with two cheques, whose groups can be interrupted."""
    store.groups = InterruptedStore(store.groups._engine)
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"), written("d"))
    return run


@pytest.fixture
async def other_store(database_url: str) -> AsyncIterator[SagaStore]:
    store = SagaStore(database_url)
    yield store
    await store.close()


@pytest.fixture
def other(other_store: SagaStore, run: SagaRun) -> SagaRun:
    """Another manager on the same database."""
    return SagaRun(other_store, COLLECTION)


def interrupt(run: SagaRun, meanwhile: Callable[[], Awaitable[object]]) -> None:
    groups = run.store.groups
    assert isinstance(groups, InterruptedStore)
    groups.meanwhile = meanwhile


async def read_steps(run: SagaRun) -> dict[str, Any]:
    return {step.id: step for step in await run.read_due_steps()}


async def read_statuses(run: SagaRun) -> dict[str, str]:
    return {id_: row.status for id_, row in (await run.read_sagas()).items()}


async def test_a_group_takes_two_statements_whatever_the_number_of_its_inputs(run: SagaRun) -> None:
    await run.deliver(*(written(f"c-{number}") for number in range(50)))
    steps, groups = await run.store.read_due_steps([COLLECTION.name], ALL_PARTITIONS, {}), run.store.groups
    assert isinstance(groups, InterruptedStore)
    groups.statements = 0
    await asyncio.gather(*(run.engine.record_reply(step, OK) for step in steps))
    assert (len(steps), groups.statements) == (32, 2)


async def test_a_changed_instance_is_read_again_and_loses_nothing(run: SagaRun, other: SagaRun) -> None:
    steps = await read_steps(run)
    interrupt(run, lambda: other.engine.abort(COLLECTION.name, "c", "enough", "ada"))
    await asyncio.gather(run.engine.record_reply(steps["c"], OK), run.engine.record_reply(steps["d"], OK))
    row = (await run.read_sagas())["c"]
    assert (row.status, row.state["reason"]) == ("CASHED", "enough")
    assert (await read_statuses(run))["d"] == "CASHED"


async def test_an_answered_step_is_not_answered_again(run: SagaRun, other: SagaRun) -> None:
    step = (await read_steps(run))["c"]
    interrupt(run, lambda: other.engine.record_reply(step, StepReply(reason="WORTHLESS")))
    await run.engine.record_reply(step, OK)
    assert (await read_statuses(run))["c"] == "REFUSED"


async def test_a_timer_that_another_manager_fires_fires_once(run: SagaRun, other: SagaRun) -> None:
    await run.expire_timers()
    timers = await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
    timer = next(timer for timer in timers if timer.id == "c")
    interrupt(run, lambda: other.engine.fire_timer(timer))
    await run.engine.fire_timer(timer)
    assert (await read_statuses(run))["c"] == "GIVEN_UP"
    assert len(await run.query("SELECT * FROM saga_timers")) == 1


async def test_a_checkpoint_that_another_manager_advances_conflicts(run: SagaRun, other: SagaRun) -> None:
    old, step = run.checkpoints[CHEQUES], (await read_steps(run))["d"]
    interrupt(run, lambda: other.engine.deliver_events(CHEQUES, [written("e")], old, ("epoch", 2)))
    late, reply = await asyncio.gather(
        run.engine.deliver_events(CHEQUES, [written("f")], old, ("epoch", 3)),
        run.engine.record_reply(step, OK),
        return_exceptions=True,
    )
    assert (type(late), reply) == (CheckpointConflict, None)
    assert await read_statuses(run) == {"c": "CASHING", "d": "CASHED", "e": "CASHING"}


async def test_an_instance_that_another_manager_begins_is_continued(
    store: SagaStore, other_store: SagaStore
) -> None:
    store.groups = InterruptedStore(store.groups._engine)
    run, other = (SagaRun(each, ACCOUNT_WATCH) for each in (store, other_store))
    accounts, cheques = (Feed(ACCOUNT_WATCH.name, f"ledger.{name}", 0) for name in ("account", "cheque"))
    event, first = written("c", account="a"), ("epoch", 1)
    interrupt(run, lambda: other.engine.deliver_events(cheques, [event], NO_CHECKPOINT, first))
    await run.engine.deliver_events(accounts, [paid("a")], NO_CHECKPOINT, first)
    state = (await run.read_sagas())["a"].state
    assert sorted(state["received"]) == [["ledger.account.a", 1], ["ledger.cheque.c", 1]]


async def test_a_locked_row_delays_its_own_inputs_only(
    run: SagaRun, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("process_manager.groups.inputs.MAX_LOST_RACES", 5)
    steps, connection = await read_steps(run), await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT FROM sagas WHERE id = 'c' FOR UPDATE")
        waiting = asyncio.create_task(run.engine.record_reply(steps["c"], OK))
        async with asyncio.timeout(5):
            await run.engine.record_reply(steps["d"], OK)
        with pytest.raises(RaceLost):
            await waiting
    await connection.close()
    await run.engine.record_reply(steps["c"], OK)
    assert await read_statuses(run) == {"c": "CASHED", "d": "CASHED"}


REFUSE = "ALTER TABLE sagas ADD CONSTRAINT refused CHECK (id NOT LIKE 'bad%' OR status <> 'CASHED')"
"""What stands for a reaction that PostgreSQL does not store."""


async def refuse(database_url: str, constraint: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(constraint)
    await connection.close()


@pytest.mark.parametrize("bad", [1, 5])
async def test_replies_that_postgresql_refuses_fail_alone_and_cost_the_others_little(
    store: SagaStore, database_url: str, bad: int
) -> None:
    store.groups = groups = InterruptedStore(store.groups._engine)
    run = SagaRun(store, COLLECTION)
    await refuse(database_url, REFUSE)
    ids = [f"bad-{number}" for number in range(bad)] + [f"good-{number}" for number in range(32 - bad)]
    await run.deliver(*map(written, ids))
    steps = await read_steps(run)

    async def reply(wanted: Collection[str]) -> list[str]:
        groups.statements = 0
        replies = await asyncio.gather(
            *(run.engine.record_reply(steps[id_], OK) for id_ in wanted), return_exceptions=True
        )
        return [id_ for id_, result in zip(wanted, replies, strict=True) if result is not None]

    assert await reply(ids) == ids[:bad]
    statuses = await read_statuses(run)
    assert all(statuses[id_] == ("CASHING" if id_ in ids[:bad] else "CASHED") for id_ in ids)
    await run.deliver(*(written(f"later-{number}") for number in range(20)))
    steps = await read_steps(run)
    later = [id_ for id_ in steps if id_.startswith("later")]
    assert await reply([*ids[:bad], *later]) == ids[:bad]
    assert groups.statements <= 2 + 2 * bad  # the faulty ones run by themselves now


@pytest.mark.parametrize("bad", [1, 3])
async def test_events_that_postgresql_refuses_block_their_own_instances(
    store: SagaStore, database_url: str, bad: int
) -> None:
    run = SagaRun(store, COLLECTION)
    await refuse(database_url, REFUSE.replace("'CASHED'", "'CASHING'"))
    ids = [f"good-{number}" for number in range(20)] + [f"bad-{number}" for number in range(bad)]
    await run.deliver(*map(written, ids))
    rows = await run.read_sagas()
    assert {id_ for id_, row in rows.items() if row.status == "CASHING"} == set(ids[:20])
    assert {id_ for id_, row in rows.items() if "cannot be stored" in row.failed_input} == set(ids[20:])
    await refuse(database_url, "ALTER TABLE sagas DROP CONSTRAINT refused")
    retried = await run.engine.retry(COLLECTION.name, "bad-0", "ada")
    assert (retried.version, retried.status.blocked_reason) == (1, "")


async def test_a_parked_event_that_postgresql_refuses_blocks_its_own_instance(
    store: SagaStore, database_url: str
) -> None:
    run, feed = SagaRun(store, ACCOUNT_WATCH), Feed(ACCOUNT_WATCH.name, "ledger.cheque", 0)
    await run.deliver(written("c", account=BROKEN_KEY))  # parked: its key fails
    run.stream_events = [written("c", account="bad"), written("c", version=2, account="good")]
    await refuse(
        database_url,
        "ALTER TABLE sagas ADD CONSTRAINT refused CHECK (id <> 'bad' OR state->'received' = '[]')",
    )
    await run.replay(feed)
    assert await store.read_parked(feed) == []
    rows = await run.read_sagas()
    assert rows["good"].state["received"] == [["ledger.cheque.c", 2]]
    failed_input = rows["bad"].other_streams["ledger.cheque.c"]["failed_input"]
    assert "cannot be stored" in failed_input
    assert "Failing row contains" not in failed_input  # that would be the row's data
    retried = await run.engine.retry(ACCOUNT_WATCH.name, "bad", "ada")
    assert "cannot be stored" in retried.failure
    await refuse(database_url, "ALTER TABLE sagas DROP CONSTRAINT refused")
    retried = await run.engine.retry(ACCOUNT_WATCH.name, "bad", "ada")
    assert (retried.state.received, retried.failure) == ((("ledger.cheque.c", 1),), "")


async def test_a_lost_connection_fails_its_group_and_the_next_one_has_another(
    run: SagaRun, database_url: str
) -> None:
    steps, connection = await read_steps(run), await asyncpg.connect(database_url)

    async def end_sessions() -> None:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    interrupt(run, end_sessions)
    with pytest.raises(Exception, match=r"terminat|closed|connection|in progress"):
        await run.engine.record_reply(steps["c"], OK)
    await run.engine.record_reply(steps["c"], OK)
    await end_sessions()
    await run.engine.record_reply(steps["d"], OK)  # its connection was lost while it was idle
    await connection.close()
    await run.store.engine.dispose()
    assert await read_statuses(run) == {"c": "CASHED", "d": "CASHED"}
