"""Clocks are three hours away. A moment of it in PostgreSQL has no lasting effect; a process is not ready."""

import os
import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from diptych.banking.v1 import command_service_pb2 as commands
from diptych.consistency.v1.consistency_pb2 import Receipt

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import (
    COMMAND_SERVER,
    PROCESS_MANAGER,
    PROJECTOR,
    QUERY_SERVER,
    RELAY,
    check_health,
    explain_health,
)
from tests.faults.test_money import (
    PAUSE,
    Tellers,
    assert_conserved,
    assert_one_effect_each,
    euros,
    read_events,
)
from tests.support.harness.caller import Caller
from tests.support.harness.callers import bearer
from tests.support.harness.database_clock import DatabaseClock, planted_clock
from tests.support.harness.invariants import verify_stack
from tests.support.harness.log_lines import lines_of
from tests.support.harness.traffic import CALLERS
from tests.support.harness.verified_system import SCOPE
from tests.support.harness.waiting import until
from tests.support.harness.wrong_clock import sitecustomize
from tests.support.ledger.installation import CONTEXT, installed
from tests.support.ledger.stubs import commands_v2, commands_v2_grpc

AWAY = (timedelta(hours=3), timedelta(hours=-3))
SET_ASIDE = "SELECT count(*) FROM events WHERE starts_with(stream, $1) AND metadata->>'time_set_aside' <> ''"


@pytest.fixture
async def clock(stack: Stack) -> AsyncIterator[DatabaseClock]:
    async with planted_clock(stack.settings.database_url) as clock:
        yield clock


@pytest.fixture
async def tellers(stack: Stack, clock: DatabaseClock) -> AsyncIterator[Tellers]:
    tellers = Tellers(stack, secrets.randbits(32))
    yield tellers
    await tellers.close()


@pytest.mark.parametrize(
    "away",
    [pytest.param(AWAY[0], id="ahead"), pytest.param(AWAY[1], id="behind", marks=pytest.mark.long)],
)
async def test_a_moment_of_a_wrong_clock_leaves_no_trace_in_what_follows(
    stack: Stack, clock: DatabaseClock, tellers: Tellers, away: timedelta
) -> None:
    caller = Caller(stack, *tellers.scopes)
    await tellers.open()
    async with tellers.flowing(PAUSE):
        await tellers.more(40)
        await clock.shift(away)
        await tellers.more(60)
        await clock.shift(timedelta(0))
        await tellers.more(CALLERS)  # the commands in flight may still have been decided at the wrong time
        refused = count_refused(tellers)
        await tellers.more(40)
        for account_id in tellers.accounts:
            await place_short_hold(caller, account_id)
    await caller.close()
    assert count_refused(tellers) == refused
    rows = await read_events(stack, tellers.bank)
    assert_conserved(rows)
    await assert_one_effect_each(stack, tellers.answers)
    assert await count_set_aside(stack, tellers.bank)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


def count_refused(tellers: Tellers) -> int:
    return list(tellers.answers.rejected.values()).count("HOLD_DEADLINE_INVALID")


async def place_short_hold(caller: Caller, account_id: str) -> None:
    """Hold a cent for 15 minutes; it is not to expire now."""
    await caller.execute(
        commands.DepositRequest(account_id=account_id, amount=euros(100_000), reference="in")
    )
    placing = commands.PlaceHoldRequest(
        hold_id=f"short-{secrets.token_hex(8)}",
        account_id=account_id,
        amount=euros(1),
        reference="held",
        customer_id="ada",
    )
    placing.deadline.FromDatetime(datetime.now(UTC) + timedelta(minutes=15))
    receipt = await caller.execute(placing)
    assert abs(receipt.record_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (
        await caller.rejection_reason(commands.ExpireHoldRequest(hold_id=placing.hold_id))
        == "HOLD_NOT_EXPIRED"
    )


async def count_set_aside(stack: Stack, bank: str) -> int:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return int(await connection.fetchval(SET_ASIDE, f"banking.account.{bank}"))
    finally:
        await connection.close()


WRONG_CLOCK = Path(sitecustomize.__file__).parent
SERVERS = {
    COMMAND_SERVER: "PostgreSQL",
    RELAY: "PostgreSQL",
    PROCESS_MANAGER: "PostgreSQL",
    PROJECTOR: "Redis",
    QUERY_SERVER: "Redis",
}
"""The server with whose clock each process compares its own."""


class ProcessClocks:
    """The clocks of all processes of a stack, which a test sets together; its servers' clocks stay right."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        path = os.pathsep.join((str(WRONG_CLOCK), os.environ["PYTHONPATH"]))
        self.environment = {"PYTHONPATH": path, "WRONG_CLOCK_FILE": str(self._file)}

    def set(self, seconds: float) -> None:
        """Set the clocks to the real time plus these seconds."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)


@pytest.fixture
async def wrong_stack(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> AsyncIterator[tuple[Stack, ProcessClocks]]:
    """A stack of one process of each kind, on the worker's servers."""
    with installed(CONTEXT):
        clocks = ProcessClocks(tmp_path)
        async with temporary_stack(
            tmp_path,
            contexts=CONTEXT,
            database_url=database_url,
            nats_url=nats_url,
            redis_url=redis_url,
            process_managers=1,
            environment=clocks.environment,
        ) as stack:
            yield stack, clocks


@pytest.mark.long
async def test_a_process_whose_clock_is_wrong_is_not_ready_until_it_is_right(
    tmp_path: Path, wrong_stack: tuple[Stack, ProcessClocks]
) -> None:
    stack, clocks = wrong_stack
    for seconds, direction in ((-10_800, "behind"), (10_800, "ahead of")):
        clocks.set(seconds)
        await until(lambda direction=direction: reports_clocks(stack, direction))  # type: ignore[misc]
    # Commands are decided all the same, at the right time, if the access token lasts long enough.
    receipt = await write_cheque(stack)
    assert abs(receipt.record_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    clocks.set(0)
    await until(lambda: has_health(stack, "SERVING"))
    for kind, server in SERVERS.items():
        lines = lines_of(tmp_path / f"{kind.name}.log", "Not serving")
        errors = [line["error"] for line in lines if "the clock is" in line["error"]]
        assert errors[0].endswith(f" s behind that of {server}")
        assert errors[1].endswith(f" s ahead of that of {server}")
        assert len(errors) == 2, "once for each reason"
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def write_cheque(stack: Stack) -> Receipt:
    token = stack.token(SCOPE, lifetime=timedelta(hours=6))
    request = commands_v2.WriteChequeRequest(
        request_id=str(uuid4()), cheque_id="c-1", account_id="a-1", amount=1, currency_code="EUR"
    )
    async with grpc.aio.insecure_channel(stack.of(COMMAND_SERVER)[0].address) as channel:
        write: Any = commands_v2_grpc.CommandServiceStub(channel).WriteCheque
        receipt: Receipt = (await write(request, metadata=bearer(token))).receipt
    return receipt


async def reports_clocks(stack: Stack, direction: str) -> bool:
    """Return whether each process is not serving because of its clock, and says so."""
    health = {kind: await explain_health(stack.of(kind)[0].address) for kind in SERVERS}
    return all(
        status == "NOT_SERVING"
        and re.fullmatch(rf"the clock is 10(799|800)\.\d s {direction} that of {SERVERS[kind]}", reason)
        for kind, (status, reason) in health.items()
    )


async def has_health(stack: Stack, health: str) -> bool:
    return {await check_health(process.address) for process in stack.processes} == {health}
