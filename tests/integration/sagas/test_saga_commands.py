"""`diptych sagas` with two sagas on one stream."""

from dataclasses import replace
from typing import Any

import pytest

from operations import sagas
from process_manager.dispatch.step_client import StepReply
from process_manager.postgres.store import SagaStore
from process_manager.saga import Saga
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN_KEY
from tests.support.harness.saga_run import SagaRun, written
from tests.support.ledger.sagas import COLLECTION

REMINDER: Saga[Any] = replace(COLLECTION, name="ledger.reminder", begins="now")
SAGAS = (COLLECTION, REMINDER, ACCOUNT_WATCH)


@pytest.fixture
def environment(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(sagas, "load_sagas", lambda _: list(SAGAS))
    return Settings(database_url=database_url, nats_url=nats_url)


@pytest.fixture
async def run(store: SagaStore) -> SagaRun:
    run = SagaRun(store, *SAGAS)
    await run.engine.begin(REMINDER)
    await run.deliver(written("c"))
    return run


async def test_show_shows_all_sagas_of_an_id(environment: Settings, run: SagaRun) -> None:
    both = await sagas.show_sagas(environment, "c", "")
    assert [part.partition(":")[0] for part in both.split("\n\n")] == [
        "ledger.collection c",
        "ledger.reminder c",
    ]
    one = await sagas.show_sagas(environment, "c", "ledger.reminder")
    assert one == both.split("\n\n")[1]
    watch = await sagas.show_sagas(environment, "a", "")
    assert "has processed version 1 of ledger.cheque.c" in watch


async def test_retry_and_abort_act_on_none_of_several_sagas(environment: Settings, run: SagaRun) -> None:
    with pytest.raises(StartError) as retry:
        await sagas.retry(environment, "c", "")
    assert str(retry.value) == (
        "c is the id of 2 sagas, type one of: diptych sagas retry c --saga ledger.collection | "
        "diptych sagas retry c --saga ledger.reminder"
    )
    with pytest.raises(StartError) as abort:
        await sagas.abort(environment, "c", "", "I'm done")
    assert "diptych sagas abort c --saga ledger.reminder --reason 'I'\"'\"'m done'" in str(abort.value)
    assert await run.query("SELECT * FROM saga_operator_actions") == []


async def test_retry_and_abort_name_the_saga_that_they_acted_on(
    environment: Settings, run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sagas, "read_stream_from", lambda _: run.read_stream)  # no relay has created a stream
    for step in await run.read_due_steps():
        if step.saga == COLLECTION.name:
            await run.engine.record_reply(step, StepReply(reason="CHEQUE_WORTHLESS"))
    assert await sagas.retry(environment, "c", "ledger.collection") == "ledger.collection c is CASHING"
    assert await sagas.abort(environment, "c", "ledger.reminder", "no") == "ledger.reminder c is GIVEN_UP"


@pytest.mark.parametrize("command", ["list", "show", "retry", "abort"])
async def test_an_unknown_saga_is_one_line_with_the_known_ones(environment: Settings, command: str) -> None:
    calls = {
        "list": lambda: sagas.list_sagas(environment, "toys.toy", "", False, 5),
        "show": lambda: sagas.show_sagas(environment, "c", "toys.toy"),
        "retry": lambda: sagas.retry(environment, "c", "toys.toy"),
        "abort": lambda: sagas.abort(environment, "c", "toys.toy", "no"),
    }
    with pytest.raises(StartError) as error:
        await calls[command]()
    known = "ledger.collection, ledger.reminder, ledger.account_watch"
    assert str(error.value) == f"--saga: there is no saga toys.toy (known: {known})"


async def test_an_unknown_id_is_one_line(environment: Settings, run: SagaRun) -> None:
    with pytest.raises(StartError, match=r"^there is no saga nobody$"):
        await sagas.show_sagas(environment, "nobody", "")
    with pytest.raises(StartError, match=r"^there is no ledger.reminder nobody$"):
        await sagas.retry(environment, "nobody", "ledger.reminder")


async def test_the_list_shows_beginnings_and_parked_streams(environment: Settings, run: SagaRun) -> None:
    await run.deliver(written("d", account=BROKEN_KEY))
    lines = (await sagas.list_sagas(environment, "", "", False, 50)).splitlines()
    assert sum(line.startswith("ledger.collection") for line in lines) == 2
    assert lines[-2].startswith("ledger.account_watch has parked ledger.cheque.d at version 1 since ")
    assert lines[-2].endswith("RuntimeError: the key is broken")
    assert lines[-1].startswith("ledger.reminder passes over events recorded before ")
