"""The fold helper as a process, on PostgreSQL; and servers whose helper fails, hangs or has other code."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.long_accounts import write_account
from command_server.contexts import banking
from command_server.contexts.banking.domain.messages import Deposit
from command_server.fold_helper import fold_process
from command_server.fold_helper.fold_process import FoldProcess
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.money import Money
from command_server.kernel.outcomes import Accepted
from command_server.postgres.event_store import PostgresEventStore, session_settings
from command_server.postgres.schema import SERVICE_ROLE
from tests.support.builders.requests import request
from tests.support.harness.changed_record import ALLOW_CHANGES
from tests.support.harness.fold_helpers import list_fold_helpers
from tests.support.harness.waiting import until

EVENTS = 11_500
STREAM = "banking.account.a"
DEPOSIT = next(kind for name, kind in command_types(banking.CONTEXT).items() if name.endswith("Deposit"))
AGGREGATES = aggregate_types([banking.CONTEXT])


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer events than a server gives to the helper, and limits of time for a machine that is busy."""
    monkeypatch.setattr(fold_process, "MIN_EVENTS", EVENTS)
    monkeypatch.setattr(fold_process, "START_TIME", 60.0)
    monkeypatch.setattr(fold_process, "SILENCE_LIMIT", 60.0)
    monkeypatch.setattr(fold_process, "MIN_RATE", 1.0)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database_url)
    await write_account(connection, "a", EVENTS)
    yield connection
    await connection.close()


@pytest.fixture
async def helper(database_url: str) -> AsyncIterator[FoldProcess]:
    helper = FoldProcess(database_url, session_settings(SERVICE_ROLE), [banking.__name__])
    yield helper
    await helper.close()


def list_children() -> list[int]:
    return list_fold_helpers(os.getpid())


async def stop_when_started() -> int:
    """Freeze the helper as soon as there is one."""
    await until(lambda: bool(list_children()))
    (process,) = list_children()
    os.kill(process, signal.SIGSTOP)
    return process


async def deposit(database_url: str, helper: FoldProcess, folds: list[int]) -> Accepted:
    """Return the outcome of a deposit on the long account, in a server of its own."""
    store = PostgresEventStore(database_url)
    commits = GroupCommit(
        store, AGGREGATES, on_folded=lambda _, events, __: folds.append(events), fold_helper=helper
    )
    writer = asyncio.create_task(commits.run())
    command = Deposit("a", Money("EUR", 1), "one more")
    result = await commits.execute(request(command, kind=DEPOSIT))
    commits.close()
    await writer
    await store.close()
    assert isinstance(result.outcome, Accepted)
    return result.outcome


async def test_the_helper_folds_and_keeps_the_state_and_ends_with_the_server(
    database_url: str, connection: "asyncpg.Connection[Any]", helper: FoldProcess
) -> None:
    assert not helper.takes(fold_process.MIN_EVENTS - 1)
    assert helper.takes(EVENTS)
    folding = asyncio.create_task(helper.fold(STREAM, EVENTS))
    await until(lambda: bool(list_children()))
    (process,) = list_children()
    assert await folding == EVENTS
    kept = await connection.fetchrow(
        "SELECT version, fingerprint, state #>> '{balance,units}' FROM snapshots"
    )
    fingerprint = AGGREGATES["banking.account"].snapshots.fingerprint
    assert tuple(kept or ()) == (EVENTS, fingerprint, str(EVENTS - 1))
    assert os.sched_getscheduler(process) == os.SCHED_IDLE
    assert not helper.takes(fold_process.MIN_EVENTS - 1), "short folds do not wait for it"
    await helper.close()
    assert not list_children()
    assert not helper.takes(EVENTS)


async def test_a_command_gets_the_state_that_the_helper_folded(
    database_url: str, connection: "asyncpg.Connection[Any]", helper: FoldProcess
) -> None:
    folds: list[int] = []
    outcome = await deposit(database_url, helper, folds)
    assert (outcome.versions, folds) == ({STREAM: EVENTS + 1}, [EVENTS])
    row = await connection.fetchval("SELECT state #>> '{balance,units}' FROM streams")
    assert row == str(EVENTS)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_helper_that_hangs_or_dies_is_replaced_by_the_server(
    database_url: str,
    connection: "asyncpg.Connection[Any]",
    helper: FoldProcess,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    monkeypatch.setattr(fold_process, "SILENCE_LIMIT", 1.0)
    folds: list[int] = []
    command = asyncio.create_task(deposit(database_url, helper, folds))
    os.kill(await stop_when_started(), number)
    assert (await command).versions == {STREAM: EVENTS + 1}
    assert folds == [EVENTS]
    assert not helper.takes(EVENTS), "it is not tried again at once"
    assert not list_children()


async def test_without_its_modules_the_helper_fails_and_the_server_folds(
    database_url: str, connection: "asyncpg.Connection[Any]"
) -> None:
    helper = FoldProcess(database_url, session_settings(SERVICE_ROLE), ["command_server.contexts.removed"])
    folds: list[int] = []
    assert (await deposit(database_url, helper, folds)).versions == {STREAM: EVENTS + 1}
    assert folds == [EVENTS]


async def test_a_helper_with_other_code_does_not_change_what_the_server_folds(
    database_url: str,
    connection: "asyncpg.Connection[Any]",
    helper: FoldProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The installed code may have been replaced since the server started."""
    monkeypatch.setitem(vars(AGGREGATES["banking.account"].snapshots), "fingerprint", "older code")
    folds: list[int] = []
    assert (await deposit(database_url, helper, folds)).versions == {STREAM: EVENTS + 1}
    assert await connection.fetchval("SELECT fingerprint FROM streams") == "older code"
    assert await connection.fetchval("SELECT state #>> '{balance,units}' FROM streams") == str(EVENTS)


async def test_an_event_that_cannot_be_folded_fails_the_command_and_the_helper_goes_on(
    connection: "asyncpg.Connection[Any]", helper: FoldProcess
) -> None:
    await write_account(connection, "b", EVENTS)
    await connection.execute(ALLOW_CHANGES)
    await connection.execute(
        "UPDATE events SET data = '\\xff' WHERE stream = $1 AND version = $2", STREAM, 5_000
    )
    streams = (STREAM, "banking.account.b")
    events = await asyncio.gather(*(helper.fold(stream, EVENTS) for stream in streams))
    assert list(events) == [0, EVENTS]
    kept = await connection.fetch("SELECT stream, version FROM snapshots ORDER BY stream")
    assert [tuple(row) for row in kept] == [(STREAM, 4_999), ("banking.account.b", EVENTS)]


@pytest.mark.parametrize(
    ("limit", "takes"), [("max 100000", True), ("200000 100000", True), ("150000 100000", False), ("", True)]
)
async def test_the_helper_is_not_used_in_a_container_with_fewer_than_two_cores(
    helper: FoldProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, takes: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(fold_process, "CONTAINER_LIMIT", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert helper.takes(EVENTS) == takes
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1))
    assert not helper.takes(EVENTS)


async def test_a_helper_that_is_idle_ends_and_another_one_takes_the_next_fold(
    connection: "asyncpg.Connection[Any]", helper: FoldProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_process, "IDLE_TIME", 0.5)
    for events in (EVENTS, 0):  # the second one begins at the state that the first one has kept
        assert await helper.fold(STREAM, EVENTS) == events
        await until(lambda: not list_children())
    assert helper.takes(EVENTS)


async def test_a_helper_that_is_too_slow_is_replaced_by_the_server(
    database_url: str,
    connection: "asyncpg.Connection[Any]",
    helper: FoldProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It gets no time while all cores are busy, although it may still report."""
    monkeypatch.setattr(fold_process, "START_TIME", 0.0)
    monkeypatch.setattr(fold_process, "MIN_RATE", 1e12)
    folds: list[int] = []
    assert (await deposit(database_url, helper, folds)).versions == {STREAM: EVENTS + 1}
    assert folds == [EVENTS]
    assert not helper.takes(EVENTS)
