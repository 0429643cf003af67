"""A row of `sagas` that this release cannot read is that instance's fault alone, and loses no input."""

from dataclasses import replace
from typing import Any

import pytest

from operations import saga_feeds
from process_manager.dispatch.step_client import StepReply
from process_manager.groups.instance import RowUnreadable
from process_manager.inspection import Inspection
from process_manager.leases import Leases
from process_manager.postgres.store import SagaStore
from process_manager.queries import query_service
from process_manager.queries.saga_records import SagaCounts
from process_manager.saga import Reaction, Timer
from runtime.process.settings import Settings
from tests.support.harness.account_watch import ACCOUNT_WATCH
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, call, cashed, list_all, paid, written
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

ROWS = ("[]", '{"state": 5}', *(pytest.param(row, marks=pytest.mark.long) for row in ('"text"', "null")))
"""States that no instance of the collection has."""


@pytest.fixture
async def run(store: SagaStore) -> SagaRun:
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"), written("d"))
    return run


async def plant(run: SagaRun, state: str = "[]", id_: str = "c") -> str:
    """Store another state, and return the one before."""
    (row,) = await run.query(f"SELECT state::text AS state FROM sagas WHERE id = '{id_}'")
    await run.query(f"UPDATE sagas SET state = '{state}' WHERE id = '{id_}'")
    return str(row.state)


async def inspect(run: SagaRun) -> None:
    leases = Leases(run.store, "ledger")
    await leases.renew()
    await Inspection(run.engine, run.store, leases).inspect_page()
    await leases.leave()


@pytest.mark.parametrize("state", ROWS)
async def test_an_unreadable_instance_keeps_its_events_waiting_and_no_others(
    run: SagaRun, state: str
) -> None:
    readable = await plant(run, state)
    await run.deliver(cashed("c"), cashed("d"), written("e"))
    rows = await run.read_sagas()
    assert {id_: row.version for id_, row in rows.items()} == {"c": 1, "d": 2, "e": 1}
    assert (rows["c"].unreadable, rows["d"].unreadable, rows["c"].status) == (True, False, "CASHING")
    assert rows["c"].failed_input.startswith("version 2 waits: its row cannot be read: ")
    await plant(run, readable)
    retried = await run.engine.retry(COLLECTION.name, "c", "ada")
    assert (retried.version, retried.status.blocked_reason) == (2, "")
    assert not (await run.read_sagas())["c"].unreadable


async def test_the_next_event_delivers_those_that_waited(run: SagaRun) -> None:
    readable = await plant(run)
    step = next(step for step in await run.read_due_steps() if step.id == "c")
    await run.store.postpone_step(step, 300, "unreadable")
    await run.deliver(cashed("c"))
    await run.deliver(cashed("c", 3))
    await plant(run, readable)
    await run.deliver(cashed("c", 4))
    row = (await run.read_sagas())["c"]
    assert (row.version, row.failed_input, row.unreadable) == (4, "", False)
    assert "c" in {step.id for step in await run.read_due_steps()}


async def test_replies_and_timers_wait_and_go_on_at_once_when_the_row_is_readable(run: SagaRun) -> None:
    readable = await plant(run)
    step = next(step for step in await run.read_due_steps() if step.id == "c")
    with pytest.raises(RowUnreadable):
        await run.engine.record_reply(step, StepReply(response=commands.CashChequeResponse()))
    await run.store.postpone_step(step, 300, "unreadable")
    await run.expire_timers()
    timers = {t.id: t for t in await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)}
    with pytest.raises(RowUnreadable):
        await run.engine.fire_timer(timers["c"])
    await run.store.postpone_timers({timers["c"]: 300})
    remaining = await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)
    assert [timer.id for timer in remaining] == ["d"]
    await plant(run, readable)
    await run.engine.retry(COLLECTION.name, "c", "ada")
    assert {step.id for step in await run.read_due_steps()} == {"c", "d"}
    again = {t.id: t for t in await run.store.read_due_timers([COLLECTION.name], ALL_PARTITIONS, 10)}
    assert again["c"] == timers["c"]
    await run.engine.record_reply(step, StepReply(response=commands.CashChequeResponse()))
    assert (await run.read_sagas())["c"].status == "CASHED"


async def test_inspection_finds_a_row_without_an_input_and_later_delivers_what_waited(run: SagaRun) -> None:
    readable = await plant(run)
    await inspect(run)
    counts = (await run.reader.count_open())[COLLECTION.name]
    assert (counts.open, counts.blocked, counts.unreadable) == (2, 1, 1)
    await run.deliver(cashed("c"))
    await inspect(run)
    assert (await run.read_sagas())["c"].version == 1
    await plant(run, readable)
    await inspect(run)
    row = (await run.read_sagas())["c"]
    assert (row.version, row.unreadable, row.blocked_reason) == (2, False, "")


async def test_unreadable_archived_steps_make_the_row_unreadable(run: SagaRun) -> None:
    await run.query("UPDATE sagas SET archived_steps = '3' WHERE id = 'c'")
    await run.deliver(cashed("c"), cashed("d"))
    rows = await run.read_sagas()
    assert (rows["c"].version, rows["c"].unreadable, rows["d"].version) == (1, True, 2)
    await inspect(run)
    await run.query("UPDATE sagas SET archived_steps = NULL WHERE id = 'c'")
    await inspect(run)
    assert (await run.read_sagas())["c"].version == 2


@pytest.mark.parametrize("state", ROWS)
async def test_queries_show_it_and_go_on(run: SagaRun, state: str) -> None:
    await plant(run, state)
    service = query_service.create_service(run.queries)
    listed = await list_all(service, "ListSagas", "sagas", saga=COLLECTION.name)
    assert {saga.id: saga.unreadable for saga in listed} == {"c": True, "d": False}
    shown = (await call(service, "GetSaga", saga=COLLECTION.name, id="c")).saga
    assert (shown.unreadable, shown.state, len(shown.steps)) == (True, "CASHING", 1)
    assert shown.blocked_reason.startswith("its row cannot be read: ")
    await inspect(run)
    listed = await list_all(service, "ListSagas", "sagas", saga=COLLECTION.name, blocked_only=True)
    assert [saga.id for saga in listed] == ["c"]


async def test_operators_actions_say_that_the_row_cannot_be_read(run: SagaRun) -> None:
    await plant(run)
    with pytest.raises(RowUnreadable, match=r"^ledger.collection c: its row cannot be read: .*$"):
        await run.engine.retry(COLLECTION.name, "c", "ada")
    with pytest.raises(RowUnreadable, match=r"^ledger.collection c: its row cannot be read: .*$"):
        await run.engine.abort(COLLECTION.name, "c", "enough", "ada")
    await inspect(run)
    assert await run.reader.count_open() == {COLLECTION.name: SagaCounts(2, 1, 1, denied=0, unreadable=1)}


async def test_a_saga_that_no_context_has_is_named(
    run: SagaRun, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saga_feeds, "load_sagas", lambda _: [COLLECTION])
    await run.query("UPDATE sagas SET saga = 'ledger.gone' WHERE id = 'c'")
    (fact,) = await saga_feeds.read_feeds(Settings(database_url=database_url))
    assert saga_feeds.describe_fact(fact) == "ledger.gone has 1 open, but no chosen context has this saga"


@pytest.mark.parametrize(
    "positions", ["[]", "3", '{"ledger.cheque.x": 1}', '{"ledger.cheque.x": {"version": "a"}}']
)
async def test_unreadable_positions_park_the_streams_whose_events_wait(
    store: SagaStore, positions: str
) -> None:
    run = SagaRun(store, ACCOUNT_WATCH)
    await run.deliver(written("c", account="a"), written("d", account="b"))
    before = await run.query("SELECT other_streams::text FROM sagas WHERE id = 'a'")
    await run.query(f"UPDATE sagas SET other_streams = '{positions}' WHERE id = 'a'")
    await run.deliver(written("e", account="a"), written("f", account="b"))
    await run.deliver(paid("a"), paid("b"))
    parked = await run.query("SELECT stream FROM saga_parked_streams")
    assert [row.stream for row in parked] == ["ledger.cheque.e"]
    rows = await run.read_sagas()
    assert (rows["a"].unreadable, rows["b"].unreadable, rows["b"].version) == (True, False, 1)
    service = query_service.create_service(run.queries)
    assert len(await list_all(service, "ListSagas", "sagas")) == 2
    await run.query(f"UPDATE sagas SET other_streams = '{before[0][0]}' WHERE id = 'a'")
    await run.engine.retry(ACCOUNT_WATCH.name, "a", "ada")
    await run.redeliver(written("e", account="a"))
    row = (await run.read_sagas())["a"]
    assert (row.version, "ledger.cheque.e" in row.other_streams, row.unreadable) == (1, True, False)


async def test_a_reaction_that_cannot_be_stored_fails_its_own_instance(store: SagaStore) -> None:
    reasons: dict[str, Any] = {"nul": "\0", "surrogate": "\ud800", "object": object()}
    names = {"name": "\0", "long": "x" * 501}

    def react(state: Any, input_: Any) -> Reaction[Any]:
        reaction, id_ = COLLECTION.react(state, input_), input_.event.cheque_id
        timers = [Timer(names[id_], None)] if id_ in names else reaction.timers
        return replace(reaction, state=replace(reaction.state, reason=reasons.get(id_, "")), timers=timers)

    run = SagaRun(store, replace(COLLECTION, react=react))
    await run.deliver(*map(written, (*reasons, *names, "good")))
    rows = await run.read_sagas()
    assert {id_ for id_, row in rows.items() if row.failed_input} == {*reasons, *names}
    assert rows["good"].status == "CASHING"


async def test_a_status_that_cannot_be_described_fails_its_own_instance(store: SagaStore) -> None:
    def describe(state: Any) -> Any:
        if state.cheque_id == "bad":
            raise LookupError(state.state)
        return COLLECTION.describe_status(state)

    run = SagaRun(store, replace(COLLECTION, describe_status=describe))
    await run.deliver(written("bad"), written("good"))
    rows = await run.read_sagas()
    assert (bool(rows["bad"].failed_input), rows["good"].status) == (True, "CASHING")
