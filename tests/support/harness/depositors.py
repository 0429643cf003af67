"""Callers that deposit until they are stopped, follow the hints of the servers, and keep what they saw."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import grpc
from diptych_client import Rejection

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.bearer import bearer
from tests.support.ledger.stubs import commands, commands_grpc

CALLERS = 64
PAUSE = 0.05
"""Seconds before the next attempt after an error without a hint."""
PATIENCE = 6.0
"""Seconds after the end of a run within which the commands in flight are answered."""


@dataclass
class CallLog:
    """The calls of one run: seconds and hints by outcome, and seconds from intention to answer."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    hints: dict[str, list[float]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    """Request ids."""

    @property
    def answered(self) -> int:
        return len(self.accepted)

    def record(self, outcome: str, seconds: float, hint: float | None = None) -> None:
        self.seconds.setdefault(outcome, []).append(seconds)
        if hint is not None:
            self.hints.setdefault(outcome, []).append(hint)

    def summarise(self) -> str:
        """Return the number of calls by outcome, with the slowest, and the largest hint of each."""
        parts = [f"{name} {len(each)} (max {max(each):.2f} s)" for name, each in self.seconds.items()]
        parts += [f"hints {name} {min(each):.2f}-{max(each):.2f} s" for name, each in self.hints.items()]
        return ", ".join([*parts, f"slowest answer {max(self.waits, default=0):.2f} s"])


class Depositors:
    """Callers, each with an account of its own, that repeat each command until it is answered."""

    def __init__(self, stack: Stack, seed: int) -> None:
        print(f"seed {seed}")
        self.account = f"slow-{seed:08x}"
        self.accepted: set[str] = set()
        """Request ids of all runs."""
        self._database_url = stack.settings.database_url
        self._random = random.Random(seed)
        self._bearer = bearer(stack, "ledger.write")
        self._channels = [grpc.aio.insecure_channel(each.address) for each in stack.of(COMMAND_SERVER)]
        self._stubs: list[Any] = [commands_grpc.CommandServiceStub(channel) for channel in self._channels]

    async def run(
        self,
        limit: float | None,
        seconds: float,
        callers: range = range(CALLERS),
        patience: float = PATIENCE,
        pause: float = 0.0,
    ) -> CallLog:
        """Run callers for some seconds, then until each command in flight is answered.

        Args:
            limit: the deadline of each call in seconds; None for none.
            seconds: of the run.
            callers: their numbers; each has the account of its number.
            patience: seconds after which a command in flight is not repeated any more.
            pause: seconds that a caller pauses at most before each command.
        """
        log, end = CallLog(), monotonic() + seconds

        async def call(number: int) -> None:
            while monotonic() < end:
                await asyncio.sleep(self._random.uniform(0.0, pause))
                await self._deposit(log, number, limit, end + patience)

        await asyncio.gather(*map(call, callers))
        self.accepted |= log.accepted
        return log

    async def _deposit(self, log: CallLog, number: int, limit: float | None, end: float) -> None:
        start, request_id = monotonic(), str(UUID(int=self._random.getrandbits(128), version=4))
        request = commands.DepositRequest(
            request_id=request_id, account_id=f"{self.account}-{number}", amount=1
        )
        while not await self._call(log, request, limit):
            if monotonic() > end:
                return
        log.waits.append(monotonic() - start)

    async def _call(self, log: CallLog, request: Any, limit: float | None) -> bool:
        start = monotonic()
        try:
            await self._random.choice(self._stubs).Deposit(request, metadata=self._bearer, timeout=limit)
        except grpc.aio.AioRpcError as error:
            rejection = Rejection.from_error(error)
            hint = rejection.retry_after
            log.record(rejection.reason or error.code().name, monotonic() - start, hint)
            await asyncio.sleep((hint or PAUSE) * self._random.uniform(1.0, 1.1))
            return False
        log.record("OK", monotonic() - start)
        log.accepted.add(request.request_id)
        return True

    async def measure_recovery(self) -> float:
        """Return the seconds until all callers are answered again, with a deadline of a second."""
        start = monotonic()
        while True:
            log = await self.run(1.0, 0.2)
            if log.seconds.keys() == {"OK"}:
                return monotonic() - start
            assert monotonic() - start < 30, log.summarise()

    async def assert_one_effect_each(self) -> None:
        """Assert that each answered command has one effect, and that no command has two."""
        connection = await asyncpg.connect(self._database_url)
        try:
            rows = await connection.fetch(
                "SELECT request_id FROM event_log WHERE starts_with(stream, $1)",
                f"ledger.account.{self.account}",
            )
        finally:
            await connection.close()
        effects = Counter(row["request_id"] for row in rows)
        assert set(effects.values()) == {1}
        assert self.accepted <= effects.keys()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
