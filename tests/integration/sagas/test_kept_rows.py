"""Groups take the rows of instances from memory, and notice whatever another manager has changed."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from process_manager.dispatch.step_client import StepReply
from process_manager.postgres import kept_rows
from process_manager.postgres.due_work import DueStep
from process_manager.postgres.kept_rows import MAX_AGE, MAX_DELAY, KeptRows
from process_manager.postgres.read_statement import READ_INSTANCES
from process_manager.postgres.store import SagaStore
from tests.support.harness.saga_run import SagaRun, written
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

OK = StepReply(response=commands.CashChequeResponse())
NO = StepReply(reason="WORTHLESS")
READ, WRITE = "READ", "WRITE"


@pytest.fixture
async def run(store: SagaStore, monkeypatch: pytest.MonkeyPatch) -> SagaRun:
    """A run with a cheque. The first statements of a connection are slow, and tell the time all the same."""
    for limit in ("MAX_AGE", "MAX_DELAY"):
        monkeypatch.setattr(kept_rows, limit, 60.0)
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"))
    return run


@pytest.fixture
async def statements(run: SagaRun) -> AsyncIterator[list[str]]:
    """The kinds of the statements on instances, of all groups that follow."""
    driver, statements = await run.store.groups._connect(), list[str]()

    def log(record: Any) -> None:
        if record.query == READ_INSTANCES or record.query.startswith("WITH locked"):
            statements.append(READ if record.query == READ_INSTANCES else WRITE)

    with driver.query_logger(log):
        yield statements


@pytest.fixture
async def other(database_url: str, run: SagaRun) -> AsyncIterator[SagaRun]:
    """Another manager on the same database."""
    store = SagaStore(database_url)
    yield SagaRun(store, COLLECTION)
    await store.close()


async def find_step(run: SagaRun) -> DueStep:
    (step,) = await run.read_due_steps()
    return step


async def read_row(run: SagaRun) -> Any:
    return (await run.read_sagas())["c"]


async def test_an_input_of_an_instance_that_was_just_written_takes_one_statement(
    run: SagaRun, statements: list[str]
) -> None:
    step = await find_step(run)
    await run.engine.record_reply(step, OK)
    assert statements == [WRITE]
    assert (await read_row(run)).status == "CASHED"
    (row,) = await run.query("SELECT clock_timestamp() - answered_at AS age FROM saga_steps")
    assert timedelta(0) <= row.age < timedelta(seconds=5)
    assert await run.query("SELECT * FROM saga_timers") == []


async def test_a_row_that_another_manager_has_changed_is_read(
    run: SagaRun, other: SagaRun, statements: list[str]
) -> None:
    step = await find_step(run)
    await other.engine.abort(COLLECTION.name, "c", "enough", "ada")
    await run.engine.record_reply(step, OK)
    assert statements == [WRITE, READ, WRITE]
    row = await read_row(run)
    assert (row.status, row.state["reason"]) == ("CASHED", "enough")


async def test_a_reply_to_a_step_that_another_manager_has_added_counts(
    run: SagaRun, other: SagaRun, statements: list[str]
) -> None:
    await run.engine.record_reply(await find_step(run), NO)
    await other.engine.retry(COLLECTION.name, "c", "ada")
    statements.clear()
    await run.engine.record_reply(await find_step(run), OK)
    assert statements == [READ, WRITE]
    assert (await read_row(run)).status == "CASHED"


async def test_a_reply_that_another_manager_has_recorded_changes_nothing(
    run: SagaRun, other: SagaRun
) -> None:
    step = await find_step(run)
    await other.engine.record_reply(step, NO)
    await run.engine.record_reply(step, OK)
    assert (await read_row(run)).status == "REFUSED"


async def test_a_stream_that_another_manager_has_parked_is_noticed(
    run: SagaRun, statements: list[str]
) -> None:
    step = await find_step(run)
    await run.query(
        "INSERT INTO saga_parked_streams"
        " (saga, stream, stream_type, partition, version, latest, error, since)"
        f" VALUES ('{COLLECTION.name}', 'ledger.cheque.c', 'ledger.cheque', 0, 2, 2, '', now())"
    )
    await run.engine.record_reply(step, NO)
    assert statements == [WRITE, READ, WRITE]
    (timer,) = await run.query("SELECT stopped_at FROM saga_timers")
    assert timer.stopped_at is not None, "the instance lacks an event, so its timers are stopped"


async def test_a_removed_row_is_read(run: SagaRun, statements: list[str]) -> None:
    step = await find_step(run)
    for table in ("saga_steps", "saga_timers", "sagas"):
        await run.query(f"DELETE FROM {table}")
    await run.engine.record_reply(step, OK)
    assert statements[:2] == [WRITE, READ]
    assert await run.read_sagas() == {}


async def test_nothing_is_kept_once_the_connection_is_lost(run: SagaRun) -> None:
    step, groups = await find_step(run), run.store.groups
    await run.deliver(written("e"))
    assert groups._rows._rows.keys() == {(COLLECTION.name, "c"), (COLLECTION.name, "e")}
    assert groups._connection is not None
    groups._connection[1].terminate()
    with pytest.raises(Exception, match="clos"):
        await run.engine.record_reply(step, OK)
    assert not groups._rows._rows, "the next group would take the row of e and connect only for its write"
    assert groups._rows.take([], []) is None, "so the time is unknown as well"
    await run.deliver(written("d"))
    assert groups._rows._rows.keys() == {(COLLECTION.name, "d")}
    await run.engine.record_reply(step, OK)
    assert (await read_row(run)).status == "CASHED"


async def test_a_state_has_its_keys_in_the_order_of_the_stored_one(run: SagaRun) -> None:
    state = {"bb": {"zz": 1, "é": 2, "a": [{"y": 1, "x": 2}]}, "c": 1, "aa": None, "\u20ac": 0.5}
    text = json.dumps(state, ensure_ascii=False)
    (stored,) = (await run.query(f"SELECT '{text}'::jsonb AS state"))[0]
    row = {"state": text, "other_streams": "{}", "latest_cause": None}
    decoded = kept_rows._decode(row)["state"]
    assert json.dumps(decoded) == json.dumps(stored) != json.dumps(state)


def test_the_time_is_never_ahead_and_ends() -> None:
    rows, noon = KeptRows(), datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert rows.take([], []) is None
    began = monotonic()
    rows.keep_time(noon, began, began)
    taken_rows = rows.take([], [])
    assert taken_rows is not None
    assert timedelta(0) <= taken_rows.now - noon <= timedelta(seconds=monotonic() - began)
    rows.keep_time(noon, began - MAX_AGE - 1, began - MAX_AGE - 1)
    assert rows.take([], []) is None, "PostgreSQL's clock may have been set meanwhile"
    late = KeptRows()
    late.keep_time(noon, began - 2 * MAX_DELAY, began)
    assert late.take([], []) is None, "it is unknown how old the time was when the answer arrived"
