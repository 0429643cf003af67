"""256 commands of 100 streams each arrive at once: the commands beside them do not wait for all of them."""

import asyncio
import secrets
from time import monotonic
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from command_server.kernel.stream_loader import MAX_BATCH_STREAMS
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.bearer import bearer
from tests.support.harness.depositors import Depositors
from tests.support.harness.invariants import verify_stack
from tests.support.ledger.stubs import commands, commands_grpc

pytestmark = pytest.mark.long
WIDE = 256
WIDTH = 100
SLOWEST = 5.0
"""Seconds that a narrow command takes at most beside them, on a busy machine."""
WIDEST = """
SELECT max(streams) FROM (
  SELECT count(DISTINCT stream) AS streams FROM events WHERE starts_with(stream, $1) GROUP BY xmin::text
) AS transactions
"""


async def test_wide_commands_delay_nobody_else(stack: Stack) -> None:
    seed = secrets.token_hex(4)
    print(f"seed {seed}")
    depositors = Depositors(stack, int(seed, 16))
    async with grpc.aio.insecure_channel(stack.of(COMMAND_SERVER)[0].address) as channel:
        stub: Any = commands_grpc.CommandServiceStub(channel)
        token = bearer(stack, "ledger.write")

        async def distribute(number: int) -> None:
            account, shares = f"wide-{seed}-{number}", range(WIDTH)
            deposit = commands.DepositRequest(request_id=str(uuid4()), account_id=account, amount=WIDTH)
            await stub.Deposit(deposit, metadata=token)
            await released.wait()
            request = commands.DistributeRequest(
                request_id=str(uuid4()),
                account_id=account,
                shares=[commands.Share(payee_id=f"{account}-{n}", amount=1) for n in shares],
                memo=commands.Memo(title="wide"),
            )
            await stub.Distribute(request, metadata=token)
            ends.append(monotonic())

        released, ends = asyncio.Event(), list[float]()
        calls = [asyncio.create_task(distribute(number)) for number in range(WIDE)]
        await depositors.run(None, 1.0, range(4))
        start = monotonic()
        released.set()
        beside = await depositors.run(None, 3.0, range(4))
        await asyncio.gather(*calls)
    print(f"{WIDE} x {WIDTH} streams in {max(ends) - start:.1f} s; beside them {beside.summarise()}")
    assert beside.seconds.keys() == {"OK"}
    assert max(beside.waits) < SLOWEST
    connection = await asyncpg.connect(stack.settings.database_url)
    assert await connection.fetchval(WIDEST, f"ledger.account.wide-{seed}") <= MAX_BATCH_STREAMS
    await connection.close()
    await depositors.close()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
