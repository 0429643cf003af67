"""A timer that came due during an outage fires after the replies and events that are due."""

import asyncio
from collections.abc import Collection, Mapping
from time import monotonic

import pytest

from contracts import streams
from process_manager.dispatch.preceding_inputs import PrecedingInputs
from process_manager.dispatch.step_client import StepReply
from process_manager.postgres.due_work import DueTimer, Feed
from process_manager.postgres.store import SagaStore
from process_manager.queries.awaited_events import StreamEnd
from runtime.jetstream import Publication
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, cashed, confirm_now, written
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

SILENT = "acme.ledger.v1.CommandService"
OK = StepReply(response=commands.CashChequeResponse())


@pytest.fixture
async def run(store: SagaStore) -> SagaRun:
    """A run with a cheque whose timer has expired and whose step has no answer."""
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"))
    await run.expire_timers()
    return run


async def read_due(run: SagaRun) -> list[DueTimer]:
    return await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)


async def answer(run: SagaRun, id_: str = "c") -> None:
    (step,) = [step for step in await run.read_due_steps() if step.id == id_]
    await run.engine.record_reply(step, OK)


async def test_a_timer_waits_for_the_steps_that_were_unanswered_when_it_was_due(run: SagaRun) -> None:
    preceding = run.create_preceding()
    timers = await read_due(run)
    ready, pauses = await preceding.choose(timers)
    assert (ready, list(pauses)) == ([], timers)
    await run.store.postpone_timers(pauses)
    assert await read_due(run) == []
    await run.query("UPDATE saga_steps SET outcome = 'OK'")
    # A step that the saga sends meanwhile does not delay it.
    await run.query(
        "INSERT INTO saga_steps (saga, id, step, attempt, partition, number, method, request, request_id,"
        " decided_at, due_at, tries) SELECT saga, id, 'more', 1, partition, 2, method, request, request_id,"
        " now(), now(), 0 FROM saga_steps"
    )
    assert await preceding.choose(timers) == (timers, {})


async def test_a_timer_that_a_reply_cancels_does_not_fire(run: SagaRun) -> None:
    (timer,) = await read_due(run)
    await run.create_preceding().choose([timer])
    await answer(run)
    assert (await read_due(run), (await run.read_sagas())["c"].status) == ([], "CASHED")
    await run.engine.fire_timer(timer)
    assert (await run.read_sagas())["c"].status == "CASHED"


@pytest.mark.parametrize(("silent", "bound"), [((SILENT,), "QUIET"), ((), "MAX_WAIT")])
async def test_the_wait_for_a_reply_is_bounded_and_shorter_for_a_silent_target(
    run: SagaRun, silent: Collection[str], bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preceding = PrecedingInputs(run.engine.sagas, run.store, read_no_ends, lambda: silent, confirm_now)
    timers = await read_due(run)
    assert (await preceding.choose(timers))[0] == []
    other = "MAX_WAIT" if bound == "QUIET" else "QUIET"
    monkeypatch.setattr(f"process_manager.dispatch.preceding_inputs.{other}", 0.0)
    assert (await preceding.choose(timers))[0] == []
    monkeypatch.setattr(f"process_manager.dispatch.preceding_inputs.{bound}", 0.0)
    assert (await preceding.choose(timers))[0] == timers


async def read_no_ends(subjects: Collection[str]) -> Mapping[str, StreamEnd | None]:
    return dict.fromkeys(subjects)


async def test_a_timer_waits_for_the_events_that_are_in_the_stream(run: SagaRun) -> None:
    await run.query("UPDATE saga_steps SET outcome = 'OK'")
    run.stream_events.append(cashed("c"))
    preceding, timers = run.create_preceding(), await read_due(run)
    assert (await preceding.choose(timers))[0] == []
    await run.redeliver(run.stream_events[-1])
    run.stream_events.append(cashed("c", 3))  # later events do not delay it
    assert await preceding.choose(timers) == (timers, {})


async def test_a_timer_waits_for_events_only_while_its_feeds_advance(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.query("UPDATE saga_steps SET outcome = 'OK'")
    run.stream_events.append(cashed("c"))
    preceding, timers = run.create_preceding(), await read_due(run)
    assert (await preceding.choose(timers))[0] == []
    monkeypatch.setattr("process_manager.dispatch.preceding_inputs.QUIET", 0.2)
    feed = Feed(COLLECTION.name, "ledger.cheque", streams.partition("c"))
    for sequence in range(4):
        await run.query(
            "INSERT INTO saga_checkpoints (saga, stream_type, partition, epoch, sequence) VALUES"
            f" ('{feed.saga}', '{feed.stream_type}', {feed.partition}, 'other', {sequence})"
            " ON CONFLICT (saga, stream_type, partition) DO UPDATE SET sequence = excluded.sequence"
        )
        assert (await preceding.choose(timers))[0] == []
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.25)
    assert (await preceding.choose(timers))[0] == timers


async def test_a_timer_does_not_wait_for_ever_while_jetstream_is_away(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Collection[str]) -> Mapping[str, StreamEnd | None]:
        raise OSError("away")

    await run.query("UPDATE saga_steps SET outcome = 'OK'")
    preceding = PrecedingInputs(run.engine.sagas, run.store, fail, tuple, confirm_now)
    timers = await read_due(run)
    assert (await preceding.choose(timers))[0] == []
    monkeypatch.setattr("process_manager.dispatch.preceding_inputs.QUIET", 0.0)
    assert (await preceding.choose(timers))[0] == timers


async def test_a_timer_waits_until_the_relay_has_published_what_was_committed(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.query("UPDATE saga_steps SET outcome = 'OK'")
    latest: list[Publication | None] = [None]

    async def read_ends(subjects: Collection[str]) -> Mapping[str, StreamEnd | None]:
        assert latest[0] is not None, "the relay is away, so the ends mean nothing"
        return await read_no_ends(subjects)

    preceding = PrecedingInputs(run.engine.sagas, run.store, read_ends, tuple, lambda: latest[0])
    timers = await read_due(run)
    assert (await preceding.choose(timers))[0] == []
    latest[0] = Publication(monotonic() - 60, "epoch", 0)  # from before the relay was away
    assert (await preceding.choose(timers))[0] == []
    latest[0] = confirm_now()
    assert (await preceding.choose(timers))[0] == timers
    latest[0] = None
    assert (await preceding.choose(timers))[0] == []
    monkeypatch.setattr("process_manager.dispatch.preceding_inputs.QUIET", 0.0)
    assert (await preceding.choose(timers))[0] == timers


async def test_timers_that_wait_hide_no_others(run: SagaRun) -> None:
    await run.deliver(*(written(f"w-{number}") for number in range(30)), written("ready"))
    await run.query("UPDATE saga_steps SET outcome = 'OK' WHERE id = 'ready'")
    await run.query("UPDATE saga_timers SET due_at = now() - interval '1 day' WHERE id <> 'ready'")
    await run.query("UPDATE saga_timers SET due_at = now() WHERE id = 'ready'")
    preceding = run.create_preceding()
    found: list[DueTimer] = []
    for _ in range(4):
        ready, pauses = await preceding.choose(
            await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
        )
        await run.store.postpone_timers(pauses)
        found += ready
    assert [timer.id for timer in found] == ["ready"]
