"""The saga engine on the real PostgreSQL: an input and its reaction are committed together, once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest

from contracts.envelope import RecordedEvent
from process_manager.dispatch.step_client import OutcomeUnknown, StepClient, StepReply
from process_manager.dispatch.step_dispatcher import StepDispatcher
from process_manager.dispatch.targets import Targets
from process_manager.dispatch.timer_dispatcher import TimerDispatcher
from process_manager.groups.instance_inputs import UnknownSaga
from process_manager.leases import Leases
from process_manager.metrics import GROUP_SIZE, GROUP_WAIT, STEP_ATTEMPTS
from process_manager.postgres.due_work import NO_CHECKPOINT, CheckpointConflict, DueStep, Feed
from process_manager.postgres.store import SagaStore
from process_manager.queries.saga_records import SagaCounts
from process_manager.saga import Input, Reaction, RetryRequested, Send
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, cashed, written
from tests.support.harness.waiting import until
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

CHEQUES = Feed(COLLECTION.name, "ledger.cheque", 0)


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, COLLECTION)


async def test_steps_and_timers_are_stored_with_the_state(run: SagaRun) -> None:
    await run.deliver(written("c"))
    (step,), (timer,) = await run.read_due_steps(), await run.query("SELECT * FROM saga_timers")
    saga = (await run.read_sagas())["c"]
    assert (saga.status, saga.version, saga.ended, saga.state["cheque_id"]) == ("CASHING", 1, False, "c")
    assert (step.step, step.attempt, step.method) == (
        "cash",
        1,
        "/acme.ledger.v1.CommandService/CashCheque",
    )
    request = commands.CashChequeRequest.FromString(step.request)
    assert (request.cheque_id, UUID(request.request_id).version) == ("c", 5)
    assert (step.correlation_id, step.traceparent) == ("c-1", written("c").metadata["traceparent"])
    assert timer.due_at - saga.began_at == timedelta(hours=1)


async def test_the_size_and_wait_of_each_group_are_measured(run: SagaRun) -> None:
    GROUP_SIZE.clear()
    GROUP_WAIT.clear()
    await run.deliver(written("c-1"), written("c-2"), written("c-3"))
    steps, reply = await run.read_due_steps(), StepReply(commands.CashChequeResponse())
    await asyncio.gather(*[run.engine.record_reply(step, reply) for step in steps[:2]])
    size, wait = GROUP_SIZE.distributions[()], GROUP_WAIT.distributions[()]
    assert (size.total, size.minimum, size.maximum, sum(size.buckets)) == (5, 2, 3, 2)
    assert sum(wait.buckets) == 2
    assert wait.minimum >= 0


def read_causes(rows: Sequence[Any]) -> set[tuple[str, str, str]]:
    return {(row.correlation_id, row.causation_id, row.traceparent) for row in rows}


async def test_steps_and_timers_are_stored_with_their_cause(run: SagaRun) -> None:
    event = written("c")
    await run.deliver(event)
    expected = {("c-1", event.id, event.metadata["traceparent"])}
    assert read_causes(await run.read_due_steps()) == expected
    assert read_causes(await run.query("SELECT * FROM saga_timers")) == expected
    (step,) = await run.read_due_steps()
    assert step.began_traceparent == event.metadata["traceparent"]
    await run.store.postpone_step(step, 0, "no answer")
    assert read_causes(await run.read_due_steps()) == expected


async def test_steps_of_an_earlier_release_have_the_ids_of_their_saga(run: SagaRun) -> None:
    await run.deliver(event := written("c"))
    await run.query("UPDATE saga_steps SET correlation_id = NULL, causation_id = NULL, traceparent = NULL")
    await run.query("UPDATE saga_timers SET correlation_id = NULL, causation_id = NULL, traceparent = NULL")
    await run.query("UPDATE sagas SET latest_cause = NULL")
    expected = {("c-1", f"{COLLECTION.name}/c", event.metadata["traceparent"])}
    assert read_causes(await run.read_due_steps()) == expected
    await run.expire_timers()
    (timer,) = await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
    await run.engine.fire_timer(timer)
    assert (await run.read_sagas())["c"].latest_cause == {
        "correlation_id": "c-1",
        "causation_id": f"{COLLECTION.name}/c",
        "traceparent": event.metadata["traceparent"],
    }


async def test_redelivered_events_are_skipped(run: SagaRun) -> None:
    await run.deliver(written("c"), written("d"))
    await run.deliver(written("c"), cashed("c"), cashed("c"))
    assert len(await run.read_due_steps()) == 2
    assert {id_: saga.version for id_, saga in (await run.read_sagas()).items()} == {"c": 2, "d": 1}


async def test_of_two_managers_at_one_checkpoint_the_second_changes_nothing(run: SagaRun) -> None:
    await run.deliver(written("c"))
    with pytest.raises(CheckpointConflict):
        await run.engine.deliver_events(CHEQUES, [written("d")], NO_CHECKPOINT, ("epoch", 1))
    with pytest.raises(CheckpointConflict):
        await run.engine.deliver_events(CHEQUES, [written("d")], ("other", 1), ("other", 2))
    assert list(await run.read_sagas()) == ["c"]


async def test_many_managers_at_once_deliver_each_event_once(run: SagaRun) -> None:
    async def deliver() -> int:
        try:
            await run.engine.deliver_events(CHEQUES, [written("c")], NO_CHECKPOINT, ("epoch", 1))
        except CheckpointConflict:
            return 0
        return 1

    assert sum(await asyncio.gather(*(deliver() for _ in range(6)))) == 1
    assert len(await run.read_due_steps()) == 1


async def test_a_gap_is_closed_from_the_stream(run: SagaRun) -> None:
    run.stream_events.append(written("c"))
    await run.deliver(cashed("c"))
    assert (await run.read_sagas())["c"].version == 2
    assert len(await run.read_due_steps()) == 1


async def test_a_gap_that_cannot_be_closed_parks_its_own_stream_only(run: SagaRun) -> None:
    await run.deliver(cashed("c"), written("d"))
    assert list(await run.read_sagas()) == ["d"]
    (parked,) = await run.query("SELECT stream, version, latest, error FROM saga_parked_streams")
    assert tuple(parked) == ("ledger.cheque.c", 1, 2, "EventsMissing: version 1 is missing")
    run.stream_events.insert(0, written("c"))
    await run.replay(CHEQUES)
    assert (await run.read_sagas())["c"].version == 2
    assert await run.query("SELECT * FROM saga_parked_streams") == []


async def test_an_event_that_fails_blocks_its_own_saga_only(run: SagaRun) -> None:
    await run.deliver(written("broken", amount=13), written("c"))
    sagas = await run.read_sagas()
    assert (sagas["broken"].version, "broken" in sagas["broken"].blocked_reason) == (0, True)
    assert (sagas["c"].status, sagas["c"].blocked_reason) == ("CASHING", "")
    unreadable = RecordedEvent("ledger.cheque.c", 2, "ledger.Unknown", b"", datetime.now(UTC), 2, {})
    await run.deliver(unreadable)
    assert "version 2" in (await run.read_sagas())["c"].blocked_reason


async def test_a_blocked_saga_continues_with_the_event_it_failed_on(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.deliver(written("broken", amount=13), cashed("broken"))
    run.stream_events[0] = written("broken")  # as if its code had been fixed
    retried = await run.engine.retry(COLLECTION.name, "broken", "ada")
    assert (retried.version, retried.status.blocked_reason) == (2, "")
    assert len(await run.read_due_steps()) == 1


async def test_a_reply_is_delivered_once(run: SagaRun) -> None:
    await run.deliver(written("c"))
    (step,) = await run.read_due_steps()
    await run.engine.record_reply(step, StepReply(response=commands.CashChequeResponse()))
    await run.engine.record_reply(step, StepReply(reason="TOO_LATE"))
    saga = (await run.read_sagas())["c"]
    assert (saga.status, saga.ended) == ("CASHED", True)
    assert await run.read_due_steps() == []
    assert await run.query("SELECT * FROM saga_timers") == []
    (row,) = await run.query("SELECT outcome, answered_at IS NOT NULL FROM saga_steps")
    assert tuple(row) == ("OK", True)


async def test_only_an_operators_retry_creates_another_request_id(run: SagaRun) -> None:
    await run.deliver(written("c"))
    (first,) = await run.read_due_steps()
    await run.engine.record_reply(first, StepReply(reason="CHEQUE_WORTHLESS"))
    assert (await run.read_sagas())["c"].blocked_reason == "CHEQUE_WORTHLESS"
    await run.engine.retry(COLLECTION.name, "c", "ada")
    (second,) = await run.read_due_steps()
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.request != second.request
    assert (await run.read_sagas())["c"].blocked_reason == ""


@pytest.mark.parametrize("restarted", [False, True], ids=["kept rows", "rows that are read"])
async def test_a_retry_permits_one_more_attempt_by_a_later_input(store: SagaStore, restarted: bool) -> None:
    """As of a saga whose other steps are unanswered when the operator retries."""
    step = Send("cash", commands.CashChequeRequest(cheque_id="c"))

    def react(state: Any, input_: Input) -> Reaction[Any]:
        return Reaction(state, () if isinstance(input_, RetryRequested) else [step])

    run = SagaRun(store, replace(COLLECTION, react=react))
    await run.deliver(written("c"))
    await run.engine.retry(COLLECTION.name, "c", "ada")
    if restarted:
        store.groups._rows.clear()
    (first,) = await run.read_due_steps()
    await run.engine.record_reply(first, StepReply(reason="NOT_NOW"))
    (second,) = await run.read_due_steps()
    assert (first.attempt, second.attempt) == (1, 2)
    with pytest.raises(ValueError, match="cash was sent before"):
        await run.engine.record_reply(second, StepReply(reason="NOT_NOW"))


async def test_an_expired_timer_fires_once(run: SagaRun) -> None:
    await run.deliver(written("c"))
    assert await run.store.read_due_timers((COLLECTION.name,), ALL_PARTITIONS, 10) == []
    await run.expire_timers()
    (timer,) = await run.store.read_due_timers((COLLECTION.name,), ALL_PARTITIONS, 10)
    await asyncio.gather(run.engine.fire_timer(timer), run.engine.fire_timer(timer))
    assert (await run.read_sagas())["c"].status == "GIVEN_UP"
    assert await run.store.read_due_timers((COLLECTION.name,), ALL_PARTITIONS, 10) == []


async def test_an_operator_aborts_a_saga(run: SagaRun) -> None:
    await run.deliver(written("c"))
    ended = await run.engine.abort(COLLECTION.name, "c", "enough", "ada")
    assert (ended.status.state, ended.state.reason) == ("GIVEN_UP", "enough")


@pytest.mark.parametrize(("saga", "id_"), [("ledger.nothing", "c"), (COLLECTION.name, "nobody")])
async def test_a_saga_that_does_not_exist_is_unknown(run: SagaRun, saga: str, id_: str) -> None:
    with pytest.raises(UnknownSaga):
        await run.engine.abort(saga, id_, "enough", "ada")
    with pytest.raises(UnknownSaga):
        await run.engine.retry(saga, id_, "ada")


class ScriptedClient(StepClient):
    """Returns prepared replies in turn, and records the steps."""

    def __init__(self, *replies: StepReply | OutcomeUnknown) -> None:
        self.replies = list(replies)
        self.sent: list[DueStep] = []

    async def call(self, step: DueStep, traceparent: str | None, **_: Any) -> StepReply:
        self.sent.append(step)
        reply = self.replies.pop(0)
        if isinstance(reply, OutcomeUnknown):
            raise reply
        return reply


@asynccontextmanager
async def dispatching(run: SagaRun, client: StepClient) -> AsyncIterator[None]:
    stopping, leases = asyncio.Event(), Leases(run.store, "ledger")
    await leases.renew()
    parts = (
        leases,
        StepDispatcher(run.engine, run.store, client, leases),
        TimerDispatcher(run.engine, run.store, leases, run.create_preceding(), run.deadlines),
    )
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.run(stopping))
        try:
            yield
        finally:
            stopping.set()
    await leases.leave()
    await run.deadlines.close()


async def test_an_unanswered_step_is_sent_again_under_its_request_id(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("process_manager.dispatch.step_dispatcher.INITIAL_PAUSE", 0.01)
    client = ScriptedClient(
        OutcomeUnknown("unavailable"),
        OutcomeUnknown("unavailable"),
        StepReply(response=commands.CashChequeResponse()),
    )
    await run.deliver(written("c"))
    async with dispatching(run, client):

        async def is_cashed() -> bool:
            return bool((await run.read_sagas())["c"].status == "CASHED")

        await until(is_cashed)
    assert len({(step.attempt, step.request) for step in client.sent}) == 1
    assert [step.tries for step in client.sent] == [0, 1, 2]


async def test_a_step_whose_reply_fails_to_be_delivered_is_sent_again(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.deliver(written("c"))
    (step,) = await run.read_due_steps()
    with monkeypatch.context() as patch:
        patch.setattr(run.engine, "sagas", {COLLECTION.name: replace(COLLECTION, react=_fail)})
        with pytest.raises(ZeroDivisionError):
            await run.engine.record_reply(step, StepReply())
    assert await run.read_due_steps() == [step]
    await run.engine.record_reply(step, StepReply())
    assert (await run.read_sagas())["c"].status == "CASHED"


def _fail(_state: object, _input: object) -> Any:
    raise ZeroDivisionError


async def test_a_rejected_step_is_counted_as_such(run: SagaRun) -> None:
    STEP_ATTEMPTS.clear()
    await run.deliver(written("c"))
    async with dispatching(run, ScriptedClient(StepReply(reason="CHEQUE_WORTHLESS"))):
        await until(lambda: {outcome for _, outcome in STEP_ATTEMPTS.sums} == {"rejected"})


async def test_the_dispatcher_fires_expired_timers(run: SagaRun) -> None:
    await run.deliver(written("c"))
    await run.expire_timers()
    async with dispatching(run, ScriptedClient(StepReply(reason="CHEQUE_WORTHLESS"))):

        async def has_given_up() -> bool:
            return bool((await run.read_sagas())["c"].status == "GIVEN_UP")

        await until(has_given_up)


async def test_a_manager_sends_no_steps_of_sagas_that_it_does_not_run(run: SagaRun) -> None:
    await run.deliver(written("c"))
    assert await run.store.read_due_steps(("toys.toy",), ALL_PARTITIONS, {}) == []
    assert len(await run.read_due_steps()) == 1


class DeniedClient(StepClient):
    """Has no scope until the test grants it."""

    def __init__(self) -> None:
        self.granted, self.calls = False, 0

    async def call(self, step: DueStep, traceparent: str | None, **_: Any) -> StepReply:
        self.calls += 1
        if not self.granted:
            raise OutcomeUnknown("PERMISSION_DENIED: needs ledger.write", denied=True)
        return StepReply(response=commands.CashChequeResponse())


async def test_a_denied_step_is_counted_until_it_is_answered_and_logged_once(
    run: SagaRun, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Mock()  # another test may have configured the output of logs
    monkeypatch.setattr("process_manager.dispatch.step_dispatcher.log", log)
    monkeypatch.setattr("process_manager.dispatch.step_dispatcher.INITIAL_PAUSE", 0.01)
    client = DeniedClient()
    STEP_ATTEMPTS.clear()
    await run.deliver(written("c"), written("d"))
    await run.query("UPDATE saga_steps SET due_at = 'infinity' WHERE id = 'd'")
    async with dispatching(run, client):
        await until(lambda: client.calls >= 3)
        assert await run.reader.count_open() == {COLLECTION.name: SagaCounts(2, 0, 0, denied=1)}
        details = await run.reader.find(COLLECTION.name, "c")
        assert details is not None
        assert details.row.waiting_for == "the reply to cash (denied)"
        client.granted = True

        async def is_cashed() -> bool:
            return bool((await run.read_sagas())["c"].status == "CASHED")

        await until(is_cashed)
    assert await run.reader.count_open() == {COLLECTION.name: SagaCounts(1, 0, 0, denied=0)}
    assert [call.args for call in log.error.call_args_list] == [("Step denied",)]
    attempts = {outcome: number for (_, outcome), number in STEP_ATTEMPTS.sums.items()}
    assert attempts == {"denied": client.calls - 1, "accepted": 1}


async def test_a_dispatcher_without_partitions_rests(run: SagaRun, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, list_silent = 0, Targets.list_silent

    def count(targets: Targets) -> Any:
        nonlocal rounds
        rounds += 1
        run.engine.work_added.set()
        return list_silent(targets)

    monkeypatch.setattr(Targets, "list_silent", count)
    monkeypatch.setattr("process_manager.dispatch.step_dispatcher.INTERVAL", 0.05)
    leases, stopping = Leases(run.store, "ledger"), asyncio.Event()
    task = asyncio.create_task(StepDispatcher(run.engine, run.store, ScriptedClient(), leases).run(stopping))
    await until(lambda: rounds >= 3)
    assert rounds < 10
    stopping.set()
    await task
