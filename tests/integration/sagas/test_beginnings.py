"""Sagas that begin now: events from before the saga's first start are passed over, whatever happens later."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from process_manager.engine import Engine
from process_manager.groups.instance_inputs import UnknownSaga
from process_manager.postgres.due_work import NO_CHECKPOINT, CheckpointConflict, Feed
from process_manager.postgres.store import SagaStore
from process_manager.saga import Saga
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN
from tests.support.harness.saga_run import SagaRun, paid, written

FROM_NOW: Saga[Any] = replace(ACCOUNT_WATCH, begins="now")
ACCOUNTS = Feed(FROM_NOW.name, "ledger.account", 0)
BEFORE = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def run(store: SagaStore) -> AsyncIterator[SagaRun]:
    run = SagaRun(store, FROM_NOW)
    await run.engine.begin(FROM_NOW)
    yield run


def read_received(saga: Any) -> list[tuple[str, int]]:
    return [(stream, version) for stream, version in saga.state["received"]]


async def test_a_stream_that_ended_before_has_no_instance(run: SagaRun) -> None:
    await run.deliver(paid("a", at=BEFORE), paid("a", version=2, at=BEFORE), written("c", at=BEFORE))
    assert await run.read_sagas() == {}


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
async def test_an_instance_begins_in_the_middle_of_a_stream(run: SagaRun, together: bool) -> None:
    events = paid("a", at=BEFORE), paid("a", version=2, at=BEFORE), paid("a", version=3)
    for batch in (events,) if together else (events[:2], events[2:]):
        await run.deliver(*batch)
    saga = (await run.read_sagas())["a"]
    assert (saga.version, read_received(saga)) == (3, [("ledger.account.a", 3)])
    await run.deliver(paid("a", version=4))
    assert (await run.read_sagas())["a"].version == 4


async def test_events_of_other_streams_from_before_are_not_delivered(run: SagaRun) -> None:
    await run.deliver(written("c", at=BEFORE), written("c", version=2))
    saga = (await run.read_sagas())["a"]
    assert (read_received(saga), saga.other_streams["ledger.cheque.c"]["version"]) == (
        [("ledger.cheque.c", 2)],
        2,
    )


async def test_a_recreated_stream_brings_nothing_from_before_back(run: SagaRun) -> None:
    events = paid("a", at=BEFORE), paid("b", at=BEFORE), paid("a", version=2)
    await run.deliver(*events)
    before = await run.read_sagas()
    again = Engine(run.store, [FROM_NOW], run.read_stream)  # as after a restart
    await again.deliver_events(ACCOUNTS, events, run.checkpoints[ACCOUNTS], ("another epoch", 3))
    assert await run.read_sagas() == before


async def test_a_retry_brings_nothing_from_before_back(run: SagaRun) -> None:
    events = (
        paid("a", at=BEFORE),
        paid("a", version=2, amount=BROKEN),
        written("c", at=BEFORE),
        written("c", version=2, amount=BROKEN),
    )
    await run.deliver(*events)
    run.stream_events[1], run.stream_events[3] = paid("a", version=2), written("c", version=2)
    await run.engine.retry(FROM_NOW.name, "a", "ada")
    saga = (await run.read_sagas())["a"]
    assert (saga.version, saga.blocked_reason) == (2, "")
    assert read_received(saga) == [("ledger.account.a", 2), ("ledger.cheque.c", 2)]


async def test_managers_that_start_at_once_take_one_moment(store: SagaStore) -> None:
    engines = [Engine(store, [FROM_NOW], SagaRun(store).read_stream) for _ in range(5)]
    moments = await asyncio.gather(*(engine.begin(FROM_NOW) for engine in engines))
    assert len(set(moments)) == 1
    assert moments[0] is not None
    assert abs(datetime.now(UTC) - moments[0]) < timedelta(minutes=1)
    assert await Engine(store, [FROM_NOW], SagaRun(store).read_stream).begin(FROM_NOW) == moments[0]


async def test_the_first_start_decides_and_a_later_change_does_nothing(store: SagaStore) -> None:
    run = SagaRun(store, ACCOUNT_WATCH)
    await run.deliver(paid("a", at=BEFORE))
    changed = Engine(store, [FROM_NOW], run.read_stream)
    await changed.deliver_events(ACCOUNTS, [paid("b", at=BEFORE)], run.checkpoints[ACCOUNTS], ("epoch", 2))
    assert list(await run.read_sagas()) == ["a", "b"]


async def test_a_retry_of_an_instance_that_never_began_is_unknown(run: SagaRun) -> None:
    await run.deliver(paid("a", at=BEFORE))
    with pytest.raises(UnknownSaga):
        await run.engine.retry(FROM_NOW.name, "a", "ada")


async def test_a_second_manager_delivers_nothing_twice(run: SagaRun) -> None:
    await run.deliver(paid("a"))
    with pytest.raises(CheckpointConflict):
        await run.engine.deliver_events(ACCOUNTS, [paid("b")], NO_CHECKPOINT, ("epoch", 1))


def test_another_beginning_is_an_error() -> None:
    with pytest.raises(ValueError, match="begins must be first_event or now"):
        replace(ACCOUNT_WATCH, begins="later")  # type: ignore[arg-type]
