"""The subject of the process manager's token is on record, and no other subject is used."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest

from operations.saga_callers import change_caller, read_callers
from process_manager.dispatch import caller_record
from process_manager.dispatch.caller_record import CallerRecord, WrongCaller, read_subject
from process_manager.dispatch.step_client import OutcomeUnknown, StepClient
from process_manager.leases import Leases
from process_manager.postgres.store import SagaStore
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness.keys import write_ring
from tests.support.harness.saga_run import SagaRun, written
from tests.support.ledger.sagas import COLLECTION

SAGAS = ("ledger.collection", "ledger.other")


def token_of(subject: Any, **claims: Any) -> str:
    return jwt.encode({"sub": subject, **claims}, "a secret of the test, not verified here")


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url)


def record_of(store: SagaStore, sagas: Sequence[str] = SAGAS) -> CallerRecord:
    return CallerRecord(store.reserved, sagas)


async def test_the_first_subject_is_recorded_and_another_one_refused(
    store: SagaStore, settings: Settings
) -> None:
    await record_of(store).check(token_of("manager"))
    await record_of(store).check(token_of("manager", exp=1, jti="a renewed token"))
    with pytest.raises(WrongCaller) as caught:
        await record_of(store).check(token_of("other"))
    assert str(caught.value) == (
        "DIPTYCH_PROCESS_MANAGER_TOKEN: its subject is other, but the steps of ledger.collection are sent as"
        " manager: use a token of manager, or see `diptych sagas change-caller`"
    )
    assert [[each.saga, each.subject] for each in await read_callers(settings)] == [
        [saga, "manager"] for saga in SAGAS
    ]


async def test_a_saga_keeps_its_caller_in_another_group_of_contexts(store: SagaStore) -> None:
    await record_of(store, ["ledger.collection"]).check(token_of("manager"))
    await record_of(store, ["ledger.third"]).check(token_of("other"))
    with pytest.raises(WrongCaller, match=r"ledger\.third are sent as other"):
        await record_of(store, ["ledger.collection", "ledger.third"]).check(token_of("manager"))
    with pytest.raises(WrongCaller):
        await record_of(store, [*SAGAS, "ledger.third"]).check(token_of("manager"))
    await record_of(store, ["ledger.other"]).check(token_of("third"))  # a refused start recorded nothing


@pytest.mark.parametrize(
    "token", ["", "no token", "a.b.c", token_of(""), jwt.encode({}, "x" * 32), token_of("a")[:-60]]
)
async def test_a_token_without_a_subject_is_not_used(token: str, store: SagaStore) -> None:
    assert read_subject(token) == ""
    with pytest.raises(WrongCaller, match="no token with a subject"):
        await record_of(store).check(token)


async def test_a_token_of_another_subject_is_not_sent(store: SagaStore, tmp_path: Path) -> None:
    file = tmp_path / "token"
    client = StepClient(Settings(process_manager_token=str(file)), record_of(store).check)
    file.write_text(token_of("manager"))
    assert await client.read_token() == token_of("manager")
    file.write_text(token_of("other"))
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"))
    (step,) = await store.read_due_steps([COLLECTION.name], range(16), {})
    with pytest.raises(OutcomeUnknown, match="its subject is other") as caught:
        await client.call(step, None, within=1)
    assert caught.value.denied
    file.write_text(renewed := token_of("manager", jti="renewed"))
    assert await client.read_token() == renewed
    await client.close()


async def test_an_operator_changes_the_caller_once_all_steps_are_answered(
    store: SagaStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of(store)
    await record.check(token_of("manager"))
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"))
    with pytest.raises(
        StartError, match=r"ledger\.collection has 1 unanswered steps of manager: start the process"
    ):
        await change_caller(settings, "other", "", repeat_unanswered=False)
    leases = Leases(store, "ledger")
    await leases.renew()
    with pytest.raises(StartError, match="runs: stop all process managers first"):
        await change_caller(settings, "other", "", repeat_unanswered=True)
    await leases.leave()
    with pytest.raises(StartError, match=r"--saga: ledger\.none has no recorded caller"):
        await change_caller(settings, "other", "ledger.none", repeat_unanswered=False)
    with pytest.raises(StartError, match="SUBJECT"):
        await change_caller(settings, "a\nb", "", repeat_unanswered=True)
    only_other = await change_caller(settings, "other", "ledger.other", repeat_unanswered=False)
    assert only_other == "ledger.other: steps are sent as other from now on"
    assert "ledger.collection" in await change_caller(settings, "other", "", repeat_unanswered=True)
    assert await change_caller(settings, "other", "", repeat_unanswered=False) == "nothing to change"
    await record_of(store).check(token_of("other"))
    monkeypatch.setattr(caller_record, "CHECK_INTERVAL", 0)
    record._checked = "", 0.0
    with pytest.raises(WrongCaller):  # a manager that still runs does not go on under the former subject
        await record.check(token_of("manager"))


async def test_a_process_manager_of_another_subject_does_not_start(
    store: SagaStore, settings: Settings, tmp_path: Path
) -> None:
    await record_of(store, ["banking.hold_deadline"]).check(token_of("manager"))
    (tmp_path / "token").write_text(token_of("other"))
    environment = {
        "DIPTYCH_DATABASE_URL": settings.database_url,
        "DIPTYCH_PROCESS_MANAGER_TOKEN": str(tmp_path / "token"),
        "DIPTYCH_KEYS": str(write_ring(tmp_path / "keys.json")),
        "DIPTYCH_CONTEXTS": "banking",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "process_manager"),
        env={**os.environ, **environment},
        stdout=DEVNULL,
        stderr=PIPE,
    )
    _, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert error.decode() == (
        "process_manager: DIPTYCH_PROCESS_MANAGER_TOKEN: its subject is other, but the steps of"
        " banking.hold_deadline are sent as manager: use a token of manager, or see"
        " `diptych sagas change-caller`\n"
    )
