"""An account with a long history to fold again, while command servers and their fold helpers are killed."""

import asyncio
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID

import asyncpg
import pytest
from diptych.banking.v1.command_service_pb2 import DepositRequest
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub
from google.type.money_pb2 import Money

from bench.environment import get_pid
from bench.long_accounts import write_account
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.fold_helpers import list_fold_helpers
from tests.support.harness.invariants import verify_stack
from tests.support.harness.traffic import Traffic

DEPOSITS = 20


class Depositors(Traffic):
    """Callers that deposit a euro each."""

    stub = CommandServiceStub
    scopes = ("banking.open", "banking.deposit", "banking.pay")

    async def deposit(self, account_id: str, choose: random.Random) -> None:
        request = DepositRequest(
            account_id=account_id, amount=Money(currency_code="EUR", units=1), reference="one more"
        )
        request.request_id = str(UUID(int=choose.getrandbits(128), version=4))
        assert await self.send("Deposit", request, choose) is not None


@pytest.fixture
async def depositors(stack: Stack) -> AsyncIterator[Depositors]:
    depositors = Depositors(stack, secrets.randbits(32))
    yield depositors
    await depositors.close()


@pytest.mark.long
@pytest.mark.parametrize(("events", "kills"), [(3_000, 1), (40_000, 6)])
async def test_a_long_account_is_commanded_after_a_release_while_servers_are_killed(
    stack: Stack, depositors: Depositors, events: int, kills: int
) -> None:
    choose = random.Random(seed := secrets.randbits(32))
    print(f"seed of the kills {seed}")
    account_id, frozen = f"long-{seed:x}", list[int]()
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        await write_account(connection, account_id, events, queued=True)
        deposits = [
            asyncio.create_task(depositors.deposit(account_id, random.Random(choose.random())))
            for _ in range(DEPOSITS)
        ]
        for _ in range(kills):
            await asyncio.sleep(choose.uniform(0.0, 0.3))  # the moment of the kill, not a wait for anything
            victim = choose.choice(stack.of(COMMAND_SERVER))
            if choose.random() < 0.5 and (helpers := list_fold_helpers(get_pid(victim))):
                os.kill(helpers[0], choose.choice([signal.SIGKILL, signal.SIGSTOP]))
                frozen.append(helpers[0])
                continue
            await victim.kill()
            await victim.start()
        await asyncio.gather(*deposits)
        query = "SELECT version, state #>> '{balance,units}' FROM streams WHERE id = $1"
        row = await connection.fetchrow(query, f"banking.account.{account_id}")
    finally:
        await connection.close()
        for helper in frozen:  # its server may have been killed
            with suppress(ProcessLookupError):
                os.kill(helper, signal.SIGCONT)
    assert row is not None
    assert [int(value) for value in row] == [events + DEPOSITS, events - 1 + DEPOSITS]
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
