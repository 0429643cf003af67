"""Sagas on the real PostgreSQL: what one is told and what it then wants happen together, and once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.due_work import NO_CHECKPOINT, CheckpointConflict, DueStep
from process_manager.engine import Engine, Gap, UnknownSaga
from process_manager.leases import Leases
from process_manager.step_client import NoReply, StepClient, StepReply
from process_manager.step_dispatcher import StepDispatcher
from process_manager.store import SagaStore
from tests.support.builders.ledger import ledger_pb2
from tests.support.harness.collection import COLLECTION
from tests.support.harness.waiting import until

EVERYTHING = range(streams.PARTITIONS)


def written(cheque_id: str, amount: int = 5, version: int = 1) -> RecordedEvent:
    message = ledger_pb2.ChequeWritten(cheque_id=cheque_id, account_id="a", amount=amount, writer="ada")
    return recorded(cheque_id, message, version)


def cashed(cheque_id: str, version: int = 2) -> RecordedEvent:
    return recorded(cheque_id, ledger_pb2.ChequeCashed(cheque_id=cheque_id), version)


def recorded(cheque_id: str, message: Any, version: int) -> RecordedEvent:
    return recorded_as(f"ledger.cheque.{cheque_id}", message, version)


def recorded_as(stream: str, message: Any, version: int) -> RecordedEvent:
    return RecordedEvent(
        stream,
        version,
        message.DESCRIPTOR.full_name,
        message.SerializeToString(),
        datetime.now(UTC),
        version,
        {"correlation_id": "c-1", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
    )


class Input:
    """An engine on a store of its own, and the events that can be read again."""

    def __init__(self, store: SagaStore) -> None:
        self.store = store
        self.past: list[RecordedEvent] = []
        self.engine = Engine(store, [COLLECTION], self._history)
        self.place = NO_CHECKPOINT

    async def _history(self, stream: str) -> Sequence[RecordedEvent]:
        return [event for event in self.past if event.stream == stream]

    async def hear(self, *events: RecordedEvent) -> None:
        self.past += events
        old, self.place = self.place, ("epoch", self.place[1] + 1)
        await self.engine.receive_events(COLLECTION, 0, events, old, self.place)

    async def sagas(self) -> dict[str, Any]:
        return {row.id: row for row in await self.rows("SELECT * FROM sagas")}

    async def steps(self) -> list[DueStep]:
        return await self.store.due_steps(EVERYTHING, 100)

    async def rows(self, sql: str) -> Sequence[Any]:
        async with self.store.engine.begin() as connection:
            return (await connection.execute(text(sql))).all()

    async def run_out(self) -> None:
        """Let all timers have run out."""
        async with self.store.engine.begin() as connection:
            await connection.execute(text("UPDATE saga_timers SET due_at = now()"))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SagaStore]:
    store = SagaStore(database_url)
    yield store
    await store.close()


@pytest.fixture
def received(store: SagaStore) -> Input:
    return Input(store)


async def test_what_a_saga_wants_is_kept_with_what_it_remembers(received: Input) -> None:
    await received.hear(written("c"))
    (step,), (timer,) = await received.steps(), await received.rows("SELECT * FROM saga_timers")
    saga = (await received.sagas())["c"]
    assert (saga.status, saga.version, saga.ended, saga.state["cheque_id"]) == ("CASHING", 1, False, "c")
    assert (step.step, step.attempt, step.method) == (
        "cash",
        1,
        "/diptych.testing.v1.CommandService/CashCheque",
    )
    request = ledger_pb2.CashChequeRequest.FromString(step.request)
    assert (request.cheque_id, UUID(request.request_id).version) == ("c", 5)
    assert (step.correlation_id, step.traceparent) == ("c-1", written("c").metadata["traceparent"])
    assert timer.due_at - saga.began_at == timedelta(hours=1)


async def test_events_that_come_again_are_passed_over(received: Input) -> None:
    await received.hear(written("c"), written("d"))
    await received.hear(written("c"), cashed("c"), cashed("c"))
    assert len(await received.steps()) == 2
    assert {id_: saga.version for id_, saga in (await received.sagas()).items()} == {"c": 2, "d": 1}


async def test_of_two_managers_at_one_place_the_second_tells_nothing(received: Input) -> None:
    await received.hear(written("c"))
    with pytest.raises(CheckpointConflict):
        await received.engine.receive_events(COLLECTION, 0, [written("d")], NO_CHECKPOINT, ("epoch", 1))
    with pytest.raises(CheckpointConflict):
        await received.engine.receive_events(COLLECTION, 0, [written("d")], ("other", 1), ("other", 2))
    assert list(await received.sagas()) == ["c"]


async def test_many_managers_at_once_tell_each_event_once(received: Input) -> None:
    async def one() -> int:
        try:
            await received.engine.receive_events(COLLECTION, 0, [written("c")], NO_CHECKPOINT, ("epoch", 1))
        except CheckpointConflict:
            return 0
        return 1

    assert sum(await asyncio.gather(*(one() for _ in range(6)))) == 1
    assert len(await received.steps()) == 1


async def test_a_gap_is_filled_from_the_aggregates_own_subject(received: Input) -> None:
    received.past.append(written("c"))
    await received.hear(cashed("c"))
    assert (await received.sagas())["c"].version == 2
    assert len(await received.steps()) == 1


async def test_a_gap_that_cannot_be_filled_moves_nothing(received: Input) -> None:
    with pytest.raises(Gap):
        await received.hear(cashed("c"))
    assert (await received.sagas(), await received.store.checkpoints(COLLECTION.name)) == ({}, {})


async def test_what_a_saga_cannot_be_told_is_its_own_trouble(received: Input) -> None:
    await received.hear(written("broken", amount=13), written("c"))
    sagas = await received.sagas()
    assert (sagas["broken"].version, "broken" in sagas["broken"].blocked_reason) == (0, True)
    assert (sagas["c"].status, sagas["c"].blocked_reason) == ("CASHING", "")
    unreadable = RecordedEvent("ledger.cheque.c", 2, "ledger.Unheard", b"", datetime.now(UTC), 2, {})
    await received.hear(unreadable)
    assert "version 2" in (await received.sagas())["c"].blocked_reason


async def test_a_saga_in_trouble_goes_on_from_where_it_stopped(
    received: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    await received.hear(written("broken", amount=13), cashed("broken"))
    received.past[0] = written("broken")  # as if its code had been mended
    mended = await received.engine.retry(COLLECTION.name, "broken", "ada")
    assert (mended.version, mended.status.blocked_reason) == (2, "")
    assert len(await received.steps()) == 1


async def test_an_answer_is_told_once(received: Input) -> None:
    await received.hear(written("c"))
    (step,) = await received.steps()
    await received.engine.record_reply(step, StepReply(response=ledger_pb2.CashChequeResponse()))
    await received.engine.record_reply(step, StepReply(reason="TOO_LATE"))
    saga = (await received.sagas())["c"]
    assert (saga.status, saga.ended) == ("CASHED", True)
    assert await received.steps() == []
    assert await received.rows("SELECT * FROM saga_timers") == []
    (row,) = await received.rows("SELECT outcome, answered_at IS NOT NULL FROM saga_steps")
    assert tuple(row) == ("OK", True)


async def test_only_an_operators_retry_makes_another_request_id(received: Input) -> None:
    await received.hear(written("c"))
    (first,) = await received.steps()
    await received.engine.record_reply(first, StepReply(reason="CHEQUE_WORTHLESS"))
    assert (await received.sagas())["c"].blocked_reason == "CHEQUE_WORTHLESS"
    await received.engine.retry(COLLECTION.name, "c", "ada")
    (second,) = await received.steps()
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.request != second.request
    assert (await received.sagas())["c"].blocked_reason == ""


async def test_a_timer_that_has_run_out_is_told_once(received: Input) -> None:
    await received.hear(written("c"))
    assert await received.store.due_timers(EVERYTHING, 10) == []
    await received.run_out()
    (timer,) = await received.store.due_timers(EVERYTHING, 10)
    await asyncio.gather(received.engine.fire_timer(timer), received.engine.fire_timer(timer))
    assert (await received.sagas())["c"].status == "GIVEN_UP"
    assert await received.store.due_timers(EVERYTHING, 10) == []


async def test_an_operator_ends_a_saga(received: Input) -> None:
    await received.hear(written("c"))
    ended = await received.engine.abort(COLLECTION.name, "c", "enough", "ada")
    assert (ended.status.state, ended.state.why) == ("GIVEN_UP", "enough")


@pytest.mark.parametrize(("saga", "id_"), [("ledger.nothing", "c"), (COLLECTION.name, "nobody")])
async def test_what_is_not_there_is_unknown(received: Input, saga: str, id_: str) -> None:
    with pytest.raises(UnknownSaga):
        await received.engine.abort(saga, id_, "enough", "ada")
    with pytest.raises(UnknownSaga):
        await received.engine.retry(saga, id_, "ada")


class Script(StepClient):
    """Answers as told, in turn, and remembers what was sent."""

    def __init__(self, *replies: StepReply | NoReply) -> None:
        self.replies = list(replies)
        self.sent: list[DueStep] = []

    async def call(self, step: DueStep, traceparent: str | None) -> StepReply:
        self.sent.append(step)
        reply = self.replies.pop(0)
        if isinstance(reply, NoReply):
            raise reply
        return reply


@asynccontextmanager
async def clockwork(received: Input, caller: StepClient) -> AsyncIterator[None]:
    stopping, leases = asyncio.Event(), Leases(received.store)
    await leases.renew()
    running = asyncio.create_task(
        StepDispatcher(received.engine, received.store, caller, leases).run(stopping)
    )
    yield
    stopping.set()
    await running


async def test_a_step_without_an_answer_is_sent_again_under_its_id(
    received: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("process_manager.step_dispatcher.FIRST_PAUSE", 0.01)
    script = Script(NoReply("away"), NoReply("away"), StepReply(response=ledger_pb2.CashChequeResponse()))
    await received.hear(written("c"))
    async with clockwork(received, script):

        async def is_cashed() -> bool:
            return bool((await received.sagas())["c"].status == "CASHED")

        await until(is_cashed)
    assert len({(step.attempt, step.request) for step in script.sent}) == 1
    assert [step.tries for step in script.sent] == [0, 1, 2]


async def test_an_answer_that_cannot_be_told_is_asked_for_again(
    received: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    await received.hear(written("c"))
    (step,) = await received.steps()
    with monkeypatch.context() as broken:
        broken.setattr(received.engine, "sagas", {COLLECTION.name: replace(COLLECTION, react=_fails)})
        with pytest.raises(ZeroDivisionError):
            await received.engine.record_reply(step, StepReply())
    assert await received.steps() == [step]
    await received.engine.record_reply(step, StepReply())
    assert (await received.sagas())["c"].status == "CASHED"


def _fails(_state: object, _told: object) -> Any:
    raise ZeroDivisionError


async def test_timers_fire_by_themselves(received: Input) -> None:
    await received.hear(written("c"))
    await received.run_out()
    async with clockwork(received, Script(StepReply(reason="CHEQUE_WORTHLESS"))):

        async def has_given_up() -> bool:
            return bool((await received.sagas())["c"].status == "GIVEN_UP")

        await until(has_given_up)


async def test_managers_share_the_partitions_and_take_over_what_one_leaves(store: SagaStore) -> None:
    first, second = Leases(store), Leases(store)
    await first.renew()
    assert first.held == frozenset(EVERYTHING)
    for leases in (second, first, second):
        await leases.renew()
    assert len(first.held) == len(second.held) == streams.PARTITIONS // 2
    assert first.held | second.held == frozenset(EVERYTHING)
    await second.leave()
    await first.renew()
    assert (first.held, second.held) == (frozenset(EVERYTHING), frozenset())
