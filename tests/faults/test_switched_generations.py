"""Reads, lists, watches and writes go on while generations are built, switched to, rolled back and pruned."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import CONTEXT, installed
from tests.support.ledger.stubs import queries

SECONDS = 60
ACCOUNTS = tuple(f"a-{number}" for number in range(20))
WHY = ("--reason", "a test")

pytestmark = pytest.mark.long


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack with two projectors and two query servers."""
    with installed(CONTEXT):
        async with temporary_stack(
            tmp_path, contexts=CONTEXT, projectors=2, query_servers=2, operations_servers=1
        ) as stack:
            yield stack


class Load:
    """Calls that never fail, each with what it has to find."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.clerk, self.chance = Clerk(stack), random.Random(seed)
        self.versions: dict[str, int] = {}
        self.known: list[str] = []
        """Cheques that have been read."""
        self.watched: dict[str, int] = {}
        self.calls = 0

    async def write(self) -> None:
        cheque_id = (await self.clerk.write(cheque_of(self.chance.choice(ACCOUNTS)))).aggregate_id
        self.versions[cheque_id] = 1
        for _ in range(self.chance.randrange(3)):
            token = (await self.clerk.endorse(cheque_id)).consistency_token
            self.versions[cheque_id] += 1
            version = self.versions[cheque_id]
            assert (await self.clerk.get(cheque_id, token)).version >= version, "stale under a token"
            self.known.append(cheque_id)

    async def read(self) -> None:
        await self.clerk.get(self.chance.choice(self.known))

    async def list(self) -> None:
        """List an account's cheques page by page, from a token's write on."""
        account = self.chance.choice(ACCOUNTS)
        receipt = await self.clerk.write(cheque_of(account))
        token = receipt.consistency_token
        listed = await self.clerk.list(account_id=account, page_size=7, at_least_as_fresh=token)
        found = [cheque.cheque_id for cheque in listed]
        assert len(found) == len(set(found)), "listed twice"
        assert receipt.aggregate_id in found, "stale under a token"

    async def watch(self, cheque_id: str) -> None:
        """Watch one cheque; its versions never go back."""
        request = queries.WatchChequeRequest(cheque_id=cheque_id)
        stub = next(self.clerk._queries)
        async for response in stub.WatchCheque(request, metadata=self.clerk.bearer):
            version = response.cheque.version
            assert version >= self.watched.get(cheque_id, 0), "a watch went back"
            self.watched[cheque_id] = version

    async def repeat(self, call: Callable[[], Awaitable[None]], until: float) -> None:
        while monotonic() < until:
            await call()
            self.calls += 1


async def cycle(stack: Stack, number: int) -> None:
    """Build a generation, switch to it, roll back, switch again, and prune the other one."""

    async def run(command: str, *more: str) -> None:
        code, out, err = await diptych(stack, "projections", command, "ledger.cheque", *more)
        assert code == 0, (command, out, err)

    await run("rebuild", *WHY)
    await run("compare")
    await run("switch", *WHY)
    await run("rollback", *WHY)
    await run("switch", *WHY)
    await run("prune", "2" if number == 1 else f"2.{number - 1}", *WHY)


async def test_nobody_notices_builds_switches_and_rollbacks(pair: Stack) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    load, end, number = Load(pair, seed), monotonic() + SECONDS, 0
    while len(load.known) < 20:
        await load.write()
    watched = sorted(set(load.known))[:5]
    watches = [asyncio.create_task(load.watch(each)) for each in watched]
    calls = [load.write, load.write, load.read, load.list, load.list]
    tasks = [asyncio.create_task(load.repeat(each, end)) for each in calls]
    while monotonic() < end:
        number += 1
        await cycle(pair, number)
    await asyncio.gather(*tasks)
    for each in watched:
        await load.clerk.endorse(each)
        load.versions[each] += 1
    await until(lambda: all(load.watched[each] == load.versions[each] for each in watched))
    assert not any(watch.done() for watch in watches)
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    await load.clerk.close()
    print(f"{load.calls} calls in {number} cycles")
    assert number >= 2
    report: Any = await verify_stack(pair)
    assert report.clean, report.to_text()
