"""Verifying a system under load, or during a rebuild, finds nothing."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from devstack.stack_kinds import temporary_stack
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.report import Report
from operations.verify.verification import verify
from tests.support.harness.caller import Caller
from tests.support.harness.verified_system import ACCOUNT, CHEQUE, HISTORY, SCOPE
from tests.support.ledger.installation import CONTEXT, installed
from tests.support.ledger.stubs import commands

COMMANDS = 300
SENDERS = 20


@pytest.fixture(autouse=True)
def ledger() -> Iterator[None]:
    with installed():
        yield


async def send_commands(caller: Caller, dice: random.Random, stop: asyncio.Event) -> None:
    """Write and change cheques of sixty accounts until `stop` is set."""
    while not stop.is_set():
        cheque_id, account_id = uuid4().hex, f"a-{dice.randrange(60)}"
        await write_cheque(caller, cheque_id, account_id)
        for _ in range(dice.randrange(4)):
            await caller.execute(commands.EndorseChequeRequest(cheque_id=cheque_id))
        if dice.random() < 0.7:
            await caller.execute(commands.DepositRequest(account_id=account_id, amount=dice.randint(1, 500)))
        if dice.random() < 0.3:
            await caller.execute(commands.CashChequeRequest(cheque_id=cheque_id))


async def write_cheque(caller: Caller, cheque_id: str, account_id: str) -> None:
    await caller.execute(commands.WriteChequeRequest(cheque_id=cheque_id, account_id=account_id, amount=7))


@pytest.mark.long
async def test_nothing_is_found_under_load(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    stack = temporary_stack(
        tmp_path,
        contexts=CONTEXT,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        relays=2,
        projectors=2,
        query_servers=0,
    )
    async with stack:
        caller, stop = Caller(stack, SCOPE), asyncio.Event()
        senders = [
            asyncio.create_task(send_commands(caller, random.Random(seed + number), stop))
            for number in range(SENDERS)
        ]
        reports: list[Report] = []
        while len(reports) < 3 or reports[-1].counts["requests"] < COMMANDS:
            reports.append(await verify(stack.settings, within=60))
            assert reports[-1].clean, reports[-1].to_text()
        stop.set()
        await asyncio.gather(*senders)
        await caller.close()
        last = await verify(stack.settings, within=60)
        assert (last.problems, last.notes) == ([], [NEVER_RAN])
        assert last.counts["events"] > reports[0].counts["events"]


async def test_verify_waits_for_a_rebuild(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> None:
    stack = temporary_stack(
        tmp_path,
        contexts=CONTEXT,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        query_servers=0,
    )
    async with stack:
        caller = Caller(stack, SCOPE)
        await asyncio.gather(*(write_cheque(caller, f"c-{number}", "a-1") for number in range(200)))
        await caller.close()
        async with Redis.from_url(redis_url) as redis:
            for view in (CHEQUE, HISTORY, ACCOUNT):
                await redis.delete(view.build, view.ready)
        report = await verify(stack.settings, within=60)
        assert report.clean, report.to_text()
