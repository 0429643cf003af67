"""PostgreSQL takes two seconds for each commit: callers are refused early, and nothing is doubled or lost."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from diptych_client import Rejection

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, check_health
from tests.support.harness.bearer import bearer
from tests.support.harness.invariants import verify_stack
from tests.support.harness.slow_commits import SlowCommits, slow_commits
from tests.support.ledger.stubs import commands, commands_grpc

pytestmark = pytest.mark.long
CALLERS = 64
COMMIT = 2.0
SLOW_PHASE = 12.0
"""Seconds of each load on the slow database."""
EARLY = 0.5
"""Seconds within which a refusal comes on a busy machine; a command that waits takes longer."""


@dataclass
class Log:
    """What the callers saw: seconds of each call by its outcome, and the retry hints."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    hints: list[float] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    """Request ids."""

    def record(self, outcome: str, seconds: float) -> None:
        self.seconds.setdefault(outcome, []).append(seconds)

    def summarise(self) -> str:
        """Return the number of calls by outcome, with the slowest of each."""
        parts = (f"{name} {len(each)} (max {max(each):.2f} s)" for name, each in self.seconds.items())
        return ", ".join(parts)


class Callers:
    """Callers that each deposit until they are stopped, and repeat each command until it is answered."""

    def __init__(self, stack: Stack, seed: int) -> None:
        print(f"seed {seed}")
        self.account = f"slow-{seed:08x}"
        self.stopped = False
        self._random = random.Random(seed)
        self._bearer = bearer(stack, "ledger.write")
        self._channels = [grpc.aio.insecure_channel(each.address) for each in stack.of(COMMAND_SERVER)]
        self._stubs: list[Any] = [commands_grpc.CommandServiceStub(channel) for channel in self._channels]

    async def run(self, limit: float | None, seconds: float) -> Log:
        """Run all callers for some seconds, then until each command in flight is answered."""
        log, end = Log(), monotonic() + seconds
        await asyncio.gather(*(self._run_caller(log, number, limit, end) for number in range(CALLERS)))
        return log

    async def _run_caller(self, log: Log, number: int, limit: float | None, end: float) -> None:
        while monotonic() < end:
            request_id = str(UUID(int=self._random.getrandbits(128), version=4))
            request = commands.DepositRequest(
                request_id=request_id, account_id=f"{self.account}-{number}", amount=1
            )
            while not await self._call(log, request, limit):
                if monotonic() > end + 3 * COMMIT:
                    return  # with a deadline that the slow database cannot meet, none may ever be answered

    async def _call(self, log: Log, request: Any, limit: float | None) -> bool:
        start = monotonic()
        try:
            await self._random.choice(self._stubs).Deposit(request, metadata=self._bearer, timeout=limit)
        except grpc.aio.AioRpcError as error:
            rejection = Rejection.from_error(error)
            log.record(rejection.reason or error.code().name, monotonic() - start)
            if rejection.reason == "OVERLOADED":
                log.hints.append(rejection.retry_after or 0.0)
            await asyncio.sleep((rejection.retry_after or 0.05) * self._random.uniform(1.0, 1.1))
            return False
        log.record("OK", monotonic() - start)
        log.accepted.add(request.request_id)
        return True

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


@pytest.fixture
async def commits(stack: Stack) -> AsyncIterator[SlowCommits]:
    async with slow_commits(stack.settings.database_url) as commits:
        yield commits


@pytest.fixture
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    callers = Callers(stack, secrets.randbits(32))
    yield callers
    await callers.close()


@pytest.mark.parametrize("limit", [None, 5.0, 1.0], ids=["no deadline", "5 s", "1 s"])
async def test_callers_are_refused_early_while_commits_are_slow(
    stack: Stack, commits: SlowCommits, callers: Callers, limit: float | None
) -> None:
    await callers.run(limit, 1.0)
    await commits.delay(COMMIT)
    await callers.run(limit, 2 * COMMIT)  # the servers measure commits that are slow
    before, start = await commits.count(), monotonic()
    slow = await callers.run(limit, SLOW_PHASE)
    count, lasted = await commits.count() - before, monotonic() - start
    health = [await check_health(process.address) for process in stack.processes]
    await commits.delay(0.0)
    recovery = await measure_recovery(callers)
    answered = len(slow.seconds.get("OK", []))
    print(f"{slow.summarise()}; {count} commits in {lasted:.1f} s, {answered / lasted:.1f} answers/s, ")
    print(f"hints {sorted(slow.hints)[:: max(1, len(slow.hints) // 5)]}, recovered in {recovery:.2f} s")
    refusals = slow.seconds.get("OVERLOADED", [])
    assert refusals and max(refusals) < EARLY
    assert all(EARLY - 0.1 < hint < 2.5 * COMMIT for hint in slow.hints)
    assert count <= len(stack.of(COMMAND_SERVER)) * (lasted / COMMIT + 1), "a commit at a time at each server"
    if limit is None or limit > 2 * COMMIT:
        assert slow.seconds.keys() == {"OK", "OVERLOADED"}
        assert answered / lasted > CALLERS / COMMIT / 4
    assert health == ["SERVING"] * len(stack.processes)
    assert recovery < COMMIT + 1
    await assert_one_effect_each(stack, callers.account, slow.accepted)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def measure_recovery(callers: Callers) -> float:
    """Return the seconds until all callers are answered again, with a deadline of a second."""
    start = monotonic()
    while True:
        log = await callers.run(1.0, 0.2)
        if log.seconds.keys() == {"OK"}:
            return monotonic() - start
        assert monotonic() - start < 30, log.summarise()


async def assert_one_effect_each(stack: Stack, account: str, accepted: set[str]) -> None:
    """Assert that each answered command has one effect, and that no command has two."""
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        rows = await connection.fetch(
            "SELECT request_id FROM event_log WHERE starts_with(stream, $1)", f"ledger.account.{account}"
        )
    finally:
        await connection.close()
    effects = Counter(row["request_id"] for row in rows)
    assert set(effects.values()) == {1}
    assert accepted <= effects.keys()
