"""A saga steps over the events that operators have had skipped: nothing happens, and later ones go on."""

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from contracts.envelope import RecordedEvent
from process_manager.postgres.due_work import Feed
from process_manager.postgres.store import SagaStore
from runtime.skipped_events import name_saga
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN, BROKEN_KEY
from tests.support.harness.saga_run import SagaRun, paid, written

ACCOUNTS = Feed(ACCOUNT_WATCH.name, "ledger.account", 0)
CHEQUES = Feed(ACCOUNT_WATCH.name, "ledger.cheque", 0)
ADD = (
    "INSERT INTO skipped_events (consumer, stream, version, reason, subject) VALUES ($1, $2, $3, 'r', 'ada')"
)


def make_unknown(event: RecordedEvent) -> RecordedEvent:
    return replace(event, type="ledger.v9.Mystery")


def make_undecodable(event: RecordedEvent) -> RecordedEvent:
    return replace(event, data=b"\xff\xff")


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, ACCOUNT_WATCH)


async def skip(database_url: str, stream: str, version: int) -> None:
    database = await asyncpg.connect(database_url)
    await database.execute(ADD, name_saga(ACCOUNT_WATCH.name), stream, version)
    await database.close()


async def read_received(run: SagaRun, id_: str = "a") -> list[tuple[str, int]]:
    return [tuple(each) for each in (await run.read_sagas())[id_].state["received"]]


@pytest.mark.parametrize("later", [0, 2], ids=["the last event", "with later events"])
@pytest.mark.parametrize(
    "break_", [make_unknown, make_undecodable, lambda _: paid("a", 2, BROKEN)], ids=["type", "bytes", "code"]
)
async def test_an_instance_steps_over_an_event_of_its_own_stream(
    run: SagaRun, database_url: str, break_: Callable[[RecordedEvent], RecordedEvent], later: int
) -> None:
    await run.deliver(paid("a"), break_(paid("a", 2)), *(paid("a", 3 + n) for n in range(later)))
    failed = (await run.read_sagas())["a"]
    assert (failed.version, bool(failed.blocked_reason)) == (1, True)
    await skip(database_url, "ledger.account.a", 2)
    await run.engine.deliver_failed(ACCOUNT_WATCH.name, "a")
    saga = (await run.read_sagas())["a"]
    assert (saga.version, saga.failed_input, saga.blocked_reason) == (2 + later, "", "")
    expected = [("ledger.account.a", version) for version in (1, *range(3, 3 + later))]
    assert await read_received(run) == expected
    assert not await run.query("SELECT stream FROM saga_parked_streams")


async def test_an_instance_steps_over_an_event_of_another_stream(run: SagaRun, database_url: str) -> None:
    await run.deliver(paid("a"))
    await run.deliver(written("c", BROKEN), written("c", 1, 2))
    await skip(database_url, "ledger.cheque.c", 1)
    await run.engine.deliver_failed(ACCOUNT_WATCH.name, "a")
    saga = (await run.read_sagas())["a"]
    assert saga.blocked_reason == ""
    assert await read_received(run) == [("ledger.account.a", 1), ("ledger.cheque.c", 2)]


async def test_a_stream_goes_on_behind_an_event_that_belongs_to_no_instance(
    run: SagaRun, database_url: str
) -> None:
    await run.deliver(written("c", account=BROKEN_KEY), written("c", 1, 2))
    assert await run.query("SELECT stream FROM saga_parked_streams")
    await skip(database_url, "ledger.cheque.c", 1)
    await run.replay(CHEQUES)
    assert not await run.query("SELECT stream FROM saga_parked_streams")
    assert await read_received(run) == [("ledger.cheque.c", 2)]


async def test_a_skip_holds_for_events_that_are_delivered_again(
    store: SagaStore, run: SagaRun, database_url: str
) -> None:
    """A stream that was recreated has all events once more, for another process manager."""
    events: list[Any] = [written("c", account=BROKEN_KEY)]
    await run.deliver(*events)
    await skip(database_url, "ledger.cheque.c", 1)
    await run.replay(CHEQUES)
    again = SagaRun(store, ACCOUNT_WATCH)
    again.stream_events += events
    again.checkpoints = run.checkpoints
    await again.redeliver(*events)
    assert not await run.query("SELECT stream FROM saga_parked_streams")
    assert await run.read_sagas() == {}
