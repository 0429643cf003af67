"""The steps of sagas that ended long ago are archived; a saga continues from its row."""

from collections.abc import AsyncIterator

import pytest

from process_manager.groups.instance_inputs import RowInspection
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres.store import SagaStore
from tests.integration.housekeeping.conftest import House
from tests.support.harness.account_watch import ACCOUNT_WATCH
from tests.support.harness.saga_run import SagaRun, cashed, paid, written

END = "UPDATE sagas SET ended = true, status_since = now() - interval '401 days'"
ANSWER = "UPDATE saga_steps SET outcome = 'OK', answered_at = decided_at"


@pytest.fixture
async def run(database_url: str) -> AsyncIterator[SagaRun]:
    store = SagaStore(database_url)
    run = SagaRun(store, ACCOUNT_WATCH)
    await run.deliver(paid("a"), written("c"), cashed("c"))
    yield run
    await store.close()


async def test_steps_go_and_their_attempts_stay(house: House, run: SagaRun) -> None:
    names = [name for (name,) in await house.fetch("SELECT step FROM saga_steps")]
    assert names
    await house.connection.execute(f"{END}; {ANSWER}")
    await house.keep(dry_run=True)
    assert "1 sagas' steps to remove" in house.line_of("sagas")
    await house.keep()
    assert "1 sagas' steps removed" in house.line_of("sagas")
    assert await house.count("saga_steps") == 0
    inspected = RowInspection(ACCOUNT_WATCH.name, "a")
    rows = await run.store.groups.read(run.engine.sagas, [inspected], [])
    instance = UnitOfWork(run.engine.sagas, rows).find(ACCOUNT_WATCH.name, "a")
    assert instance.attempts == dict.fromkeys(names, 1)


async def test_events_of_a_rebuilt_stream_take_no_step_again(house: House, run: SagaRun) -> None:
    await house.connection.execute(f"{END}; {ANSWER}")
    await house.keep()
    await run.redeliver(paid("a"), written("c"), cashed("c"))
    assert await house.count("saga_steps") == 0


async def test_a_later_event_finds_the_saga_where_it_was(house: House, run: SagaRun) -> None:
    await house.connection.execute(f"{END}; {ANSWER}")
    await house.keep()
    archived = await house.fetch("SELECT archived_steps FROM sagas")
    await run.deliver(written("d"), cashed("d"))
    assert await house.count("saga_steps") == 1
    assert await house.fetch("SELECT archived_steps FROM sagas") == archived
    await house.connection.execute(f"{END}; {ANSWER}")
    await house.keep()
    assert await house.fetch("SELECT count(*) FROM sagas, jsonb_object_keys(archived_steps)") == [(2,)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sagas SET ended = false",
        "UPDATE sagas SET status_since = now()",
        "UPDATE sagas SET blocked_reason = 'a step was rejected'",
        "UPDATE saga_steps SET outcome = NULL",
    ],
)
async def test_a_saga_that_may_need_its_steps_keeps_them(house: House, run: SagaRun, change: str) -> None:
    await house.connection.execute(f"{END}; {ANSWER}; {change}")
    await house.keep()
    assert await house.count("saga_steps") == 1
