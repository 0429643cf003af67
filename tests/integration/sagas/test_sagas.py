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
from process_manager.due_work import NOWHERE, DueStep, Superseded
from process_manager.engine import Engine, Gap, Unknown
from process_manager.leases import Leases
from process_manager.step_client import Caller, NoAnswer, Reply
from process_manager.step_dispatcher import Clockwork
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


class Told:
    """An engine on a store of its own, and the events that can be read again."""

    def __init__(self, store: SagaStore) -> None:
        self.store = store
        self.past: list[RecordedEvent] = []
        self.engine = Engine(store, [COLLECTION], self._history)
        self.place = NOWHERE

    async def _history(self, stream: str) -> Sequence[RecordedEvent]:
        return [event for event in self.past if event.stream == stream]

    async def hear(self, *events: RecordedEvent) -> None:
        self.past += events
        old, self.place = self.place, ("epoch", self.place[1] + 1)
        await self.engine.hear(COLLECTION, 0, events, old, self.place)

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
def told(store: SagaStore) -> Told:
    return Told(store)


async def test_what_a_saga_wants_is_kept_with_what_it_remembers(told: Told) -> None:
    await told.hear(written("c"))
    (step,), (timer,) = await told.steps(), await told.rows("SELECT * FROM saga_timers")
    saga = (await told.sagas())["c"]
    assert (saga.standing, saga.version, saga.ended, saga.state["cheque_id"]) == ("CASHING", 1, False, "c")
    assert (step.step, step.attempt, step.method) == (
        "cash",
        1,
        "/diptych.testing.v1.CommandService/CashCheque",
    )
    request = ledger_pb2.CashChequeRequest.FromString(step.request)
    assert (request.cheque_id, UUID(request.request_id).version) == ("c", 5)
    assert (step.correlation_id, step.traceparent) == ("c-1", written("c").metadata["traceparent"])
    assert timer.due_at - saga.began_at == timedelta(hours=1)


async def test_events_that_come_again_are_passed_over(told: Told) -> None:
    await told.hear(written("c"), written("d"))
    await told.hear(written("c"), cashed("c"), cashed("c"))
    assert len(await told.steps()) == 2
    assert {id_: saga.version for id_, saga in (await told.sagas()).items()} == {"c": 2, "d": 1}


async def test_of_two_managers_at_one_place_the_second_tells_nothing(told: Told) -> None:
    await told.hear(written("c"))
    with pytest.raises(Superseded):
        await told.engine.hear(COLLECTION, 0, [written("d")], NOWHERE, ("epoch", 1))
    with pytest.raises(Superseded):
        await told.engine.hear(COLLECTION, 0, [written("d")], ("other", 1), ("other", 2))
    assert list(await told.sagas()) == ["c"]


async def test_many_managers_at_once_tell_each_event_once(told: Told) -> None:
    async def one() -> int:
        try:
            await told.engine.hear(COLLECTION, 0, [written("c")], NOWHERE, ("epoch", 1))
        except Superseded:
            return 0
        return 1

    assert sum(await asyncio.gather(*(one() for _ in range(6)))) == 1
    assert len(await told.steps()) == 1


async def test_a_gap_is_filled_from_the_aggregates_own_subject(told: Told) -> None:
    told.past.append(written("c"))
    await told.hear(cashed("c"))
    assert (await told.sagas())["c"].version == 2
    assert len(await told.steps()) == 1


async def test_a_gap_that_cannot_be_filled_moves_nothing(told: Told) -> None:
    with pytest.raises(Gap):
        await told.hear(cashed("c"))
    assert (await told.sagas(), await told.store.progress(COLLECTION.name)) == ({}, {})


async def test_what_a_saga_cannot_be_told_is_its_own_trouble(told: Told) -> None:
    await told.hear(written("broken", amount=13), written("c"))
    sagas = await told.sagas()
    assert (sagas["broken"].version, "broken" in sagas["broken"].trouble) == (0, True)
    assert (sagas["c"].standing, sagas["c"].trouble) == ("CASHING", "")
    unreadable = RecordedEvent("ledger.cheque.c", 2, "ledger.Unheard", b"", datetime.now(UTC), 2, {})
    await told.hear(unreadable)
    assert "version 2" in (await told.sagas())["c"].trouble


async def test_a_saga_in_trouble_goes_on_from_where_it_stopped(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.hear(written("broken", amount=13), cashed("broken"))
    told.past[0] = written("broken")  # as if its code had been mended
    mended = await told.engine.retry(COLLECTION.name, "broken", "ada")
    assert (mended.version, mended.standing.trouble) == (2, "")
    assert len(await told.steps()) == 1


async def test_an_answer_is_told_once(told: Told) -> None:
    await told.hear(written("c"))
    (step,) = await told.steps()
    await told.engine.answer(step, Reply(response=ledger_pb2.CashChequeResponse()))
    await told.engine.answer(step, Reply(reason="TOO_LATE"))
    saga = (await told.sagas())["c"]
    assert (saga.standing, saga.ended) == ("CASHED", True)
    assert await told.steps() == []
    assert await told.rows("SELECT * FROM saga_timers") == []
    (row,) = await told.rows("SELECT outcome, answered_at IS NOT NULL FROM saga_steps")
    assert tuple(row) == ("OK", True)


async def test_only_an_operators_retry_makes_another_request_id(told: Told) -> None:
    await told.hear(written("c"))
    (first,) = await told.steps()
    await told.engine.answer(first, Reply(reason="CHEQUE_WORTHLESS"))
    assert (await told.sagas())["c"].trouble == "CHEQUE_WORTHLESS"
    await told.engine.retry(COLLECTION.name, "c", "ada")
    (second,) = await told.steps()
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.request != second.request
    assert (await told.sagas())["c"].trouble == ""


async def test_a_timer_that_has_run_out_is_told_once(told: Told) -> None:
    await told.hear(written("c"))
    assert await told.store.due_timers(EVERYTHING, 10) == []
    await told.run_out()
    (timer,) = await told.store.due_timers(EVERYTHING, 10)
    await asyncio.gather(told.engine.fire(timer), told.engine.fire(timer))
    assert (await told.sagas())["c"].standing == "GIVEN_UP"
    assert await told.store.due_timers(EVERYTHING, 10) == []


async def test_an_operator_ends_a_saga(told: Told) -> None:
    await told.hear(written("c"))
    ended = await told.engine.abort(COLLECTION.name, "c", "enough", "ada")
    assert (ended.standing.state, ended.state.why) == ("GIVEN_UP", "enough")


@pytest.mark.parametrize(("saga", "id_"), [("ledger.nothing", "c"), (COLLECTION.name, "nobody")])
async def test_what_is_not_there_is_unknown(told: Told, saga: str, id_: str) -> None:
    with pytest.raises(Unknown):
        await told.engine.abort(saga, id_, "enough", "ada")
    with pytest.raises(Unknown):
        await told.engine.retry(saga, id_, "ada")


class Script(Caller):
    """Answers as told, in turn, and remembers what was sent."""

    def __init__(self, *replies: Reply | NoAnswer) -> None:
        self.replies = list(replies)
        self.sent: list[DueStep] = []

    async def call(self, step: DueStep, traceparent: str | None) -> Reply:
        self.sent.append(step)
        reply = self.replies.pop(0)
        if isinstance(reply, NoAnswer):
            raise reply
        return reply


@asynccontextmanager
async def clockwork(told: Told, caller: Caller) -> AsyncIterator[None]:
    stopping, leases = asyncio.Event(), Leases(told.store)
    await leases.renew()
    running = asyncio.create_task(Clockwork(told.engine, told.store, caller, leases).run(stopping))
    yield
    stopping.set()
    await running


async def test_a_step_without_an_answer_is_sent_again_under_its_id(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("process_manager.step_dispatcher.FIRST_PAUSE", 0.01)
    script = Script(NoAnswer("away"), NoAnswer("away"), Reply(response=ledger_pb2.CashChequeResponse()))
    await told.hear(written("c"))
    async with clockwork(told, script):

        async def is_cashed() -> bool:
            return bool((await told.sagas())["c"].standing == "CASHED")

        await until(is_cashed)
    assert len({(step.attempt, step.request) for step in script.sent}) == 1
    assert [step.tries for step in script.sent] == [0, 1, 2]


async def test_an_answer_that_cannot_be_told_is_asked_for_again(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.hear(written("c"))
    (step,) = await told.steps()
    with monkeypatch.context() as broken:
        broken.setattr(told.engine, "sagas", {COLLECTION.name: replace(COLLECTION, react=_fails)})
        with pytest.raises(ZeroDivisionError):
            await told.engine.answer(step, Reply())
    assert await told.steps() == [step]
    await told.engine.answer(step, Reply())
    assert (await told.sagas())["c"].standing == "CASHED"


def _fails(_state: object, _told: object) -> Any:
    raise ZeroDivisionError


async def test_timers_fire_by_themselves(told: Told) -> None:
    await told.hear(written("c"))
    await told.run_out()
    async with clockwork(told, Script(Reply(reason="CHEQUE_WORTHLESS"))):

        async def has_given_up() -> bool:
            return bool((await told.sagas())["c"].standing == "GIVEN_UP")

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
