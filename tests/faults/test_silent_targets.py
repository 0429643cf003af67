"""A context hangs while many sagas wait for it: timers and the steps to other contexts are not late."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import uuid4

import asyncpg
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from google.type.money_pb2 import Money

from devstack.processes import Process
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.log_lines import lines_of
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import cheque_of
from tests.support.ledger.installation import CONTEXT, installed

HOLDS = 20
TARGET = "acme.ledger.v1.CommandService"
MAX_DELAY = 3.0
"""Seconds that a hold may end after its deadline; without places of targets it was 15 s and more."""
LATEST_END = """
SELECT extract(epoch FROM max(recorded_at)) FROM events WHERE type = 'diptych.banking.v1.HoldExpired'
HAVING count(*) = $1
"""
COUNT_ANSWERED = "SELECT count(*) FROM saga_steps WHERE saga = 'ledger.collection' AND outcome IS NOT NULL"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack whose sagas reach the ledger at its second command server."""
    with installed():
        stack = temporary_stack(
            tmp_path, contexts=f"{CONTEXT},banking", command_servers=2, query_servers=0, operations_servers=1
        )
        targets = f"{CONTEXT}={stack.of(COMMAND_SERVER)[1].address}"
        stack.add(PROCESS_MANAGER, environment={"DIPTYCH_COMMAND_TARGETS": targets})
        async with stack:
            yield stack


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[Caller]:
    first, _ = stack.of(COMMAND_SERVER)
    apart = dict.fromkeys((CONTEXT, "banking"), first)
    caller = Caller(stack, "ledger.write", "banking.open", "banking.deposit", "banking.hold", apart=apart)
    yield caller
    await caller.close()


async def fetch_value(stack: Stack, query: str, *arguments: object) -> float:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return float(await connection.fetchval(query, *arguments) or 0)
    finally:
        await connection.close()


def euros(units: int) -> Money:
    return Money(currency_code="EUR", units=units)


async def place_holds(caller: Caller, deadline: datetime) -> None:
    id_ = str(uuid4())
    await caller.execute(banking.OpenAccountRequest(account_id=id_, owner_id="ada", currency_code="EUR"))
    await caller.execute(banking.DepositRequest(account_id=id_, amount=euros(HOLDS), reference="pay"))
    for _ in range(HOLDS):
        hold = banking.PlaceHoldRequest(
            hold_id=str(uuid4()), account_id=id_, amount=euros(1), reference="r", customer_id="ada"
        )
        hold.deadline.FromDatetime(deadline)
        await caller.execute(hold)


async def write_cheques(caller: Caller, count: int) -> None:
    places = asyncio.Semaphore(50)  # more at once would be rejected

    async def write() -> None:
        async with places:
            await caller.execute(cheque_of("ada"))

    await asyncio.gather(*(write() for _ in range(count)))


@pytest.mark.long
@pytest.mark.parametrize("waiting", [200, 1000])
async def test_a_frozen_context_delays_no_deadline_of_another(
    stack: Stack, caller: Caller, tmp_path: Path, waiting: int
) -> None:
    frozen = stack.of(COMMAND_SERVER)[1]
    frozen.child.freeze()
    await write_cheques(caller, waiting)
    deadline = datetime.now(UTC) + timedelta(seconds=4)
    await place_holds(caller, deadline)

    async def have_ended() -> bool:
        return bool(await fetch_value(stack, LATEST_END, HOLDS))

    await until(have_ended, 120)
    delay = await fetch_value(stack, LATEST_END, HOLDS) - deadline.timestamp()
    print(f"{waiting} waiting steps: the last hold ended {delay:.2f} s after its deadline")
    assert delay < MAX_DELAY
    await assert_visible(stack, tmp_path / f"{PROCESS_MANAGER.name}.log", waiting)
    await assert_flows_again(stack, frozen, waiting)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def assert_visible(stack: Stack, log: Path, waiting: int) -> None:
    async def is_shown() -> bool:
        _, out, _ = await diptych(stack, "status", "--json")
        silent = {each["service"]: each["waiting_steps"] for each in json.loads(out)["silent_targets"]}
        return bool(silent.get(TARGET) == waiting)

    await until(is_shown)
    assert len(lines_of(log, "Step target does not answer")) == 1


async def assert_flows_again(stack: Stack, frozen: Process, waiting: int) -> None:
    async def is_answered() -> bool:
        return await fetch_value(stack, COUNT_ANSWERED) > 0

    async def are_answered() -> bool:
        return await fetch_value(stack, COUNT_ANSWERED) == waiting

    frozen.child.thaw()
    thawed = monotonic()
    await until(is_answered, 30)
    first = monotonic() - thawed
    await until(are_answered, 60)
    print(
        f"steps are answered {first:.2f} s after the thaw, all {waiting} after {monotonic() - thawed:.2f} s"
    )
    assert first < 5
