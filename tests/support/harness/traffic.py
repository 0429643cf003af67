"""Callers that write, endorse and void cheques, retry failed calls, and record every answer."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.bearer import bearer
from tests.support.harness.rpc_failure import reason_of
from tests.support.ledger.clerk import cheque_of
from tests.support.ledger.stubs import commands, commands_grpc

CALLERS = 12
PAUSE = 0.15
"""Seconds between two commands of a caller: enough for a fault to meet many, few enough to verify quickly."""
ANSWER_TIMEOUT = 60.0
"""Seconds after which an unanswered command fails the test."""
RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)
FAST_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))


@dataclass
class Answers:
    """The answers that callers got."""

    accepted: dict[str, tuple[str, Receipt]] = field(default_factory=dict)
    """Request id -> the method and the receipt."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Request id -> the reason."""
    repeated: int = 0


class Traffic:
    """Concurrent callers of every command server of a stack; subclasses choose other commands.

    Args:
        stack: the stack.
        seed: determines all random choices; printed.
    """

    stub: Any = commands_grpc.CommandServiceStub
    scopes: Sequence[str] = ("ledger.write", "ledger.read")

    def __init__(self, stack: Stack, seed: int) -> None:
        print(f"seed {seed}")
        self.answers = Answers()
        self._random = random.Random(seed)
        self._bearer = bearer(stack, *self.scopes)
        servers = [process.address for process in stack.of(COMMAND_SERVER)]
        self._channels = [grpc.aio.insecure_channel(address, options=FAST_RECONNECT) for address in servers]
        self._stubs: list[Any] = [self.stub(channel) for channel in self._channels]
        self.stopped = False

    @asynccontextmanager
    async def flowing(self, pause: float = PAUSE) -> AsyncIterator["Traffic"]:
        """Run all callers; on exit, wait until each command in flight is answered.

        Args:
            pause: seconds between two commands of a caller.
        """
        callers = [
            asyncio.create_task(self.run_caller(n, self._random.random(), pause)) for n in range(CALLERS)
        ]
        try:
            yield self
        finally:
            self.stopped = True
            outcomes = await asyncio.gather(*callers, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert not failures, failures

    async def more(self, count: int) -> None:
        """Wait until this many more commands have been accepted."""
        enough, deadline = len(self.answers.accepted) + count, monotonic() + ANSWER_TIMEOUT
        while len(self.answers.accepted) < enough:
            assert monotonic() < deadline, f"{len(self.answers.accepted)} of {enough} commands were accepted"
            await asyncio.sleep(0.02)

    async def write(self, account: str) -> Receipt:
        receipt = await self.send("WriteCheque", cheque_of(account), random.Random(0))
        assert receipt is not None
        return receipt

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def run_caller(self, number: int, seed: float, pause: float) -> None:
        choose, cheques = random.Random(seed), list[str]()
        while not self.stopped:
            await asyncio.sleep(pause)
            if len(cheques) < 3 or choose.random() < 0.4:
                receipt = await self.send("WriteCheque", cheque_of(f"caller-{number}"), choose)
                assert receipt is not None, "a cheque can always be written"
                cheques.append(receipt.aggregate_id)
            else:
                method, request = _make_change(choose, cheques)
                await self.send(method, request, choose)

    async def send(self, method: str, request: Any, choose: random.Random) -> Receipt | None:
        """Send a command to random servers until one answers; repeat a fifth of the commands."""
        receipt = await self._send_until_answered(method, request, choose.choice)
        for _ in range(choose.random() < 0.2):
            self.answers.repeated += 1
            assert await self._send_until_answered(method, request, choose.choice) == receipt, (
                "one id, one answer"
            )
        return receipt

    async def _send_until_answered(
        self, method: str, request: Any, choose: Callable[[Any], Any]
    ) -> Receipt | None:
        deadline = monotonic() + ANSWER_TIMEOUT
        while True:
            call = getattr(choose(self._stubs), method)(request, metadata=self._bearer, timeout=3)
            try:
                receipt: Receipt = (await call).receipt
            except grpc.aio.AioRpcError as error:
                if error.code() in RETRIED and monotonic() < deadline:
                    await asyncio.sleep(0.1)
                    continue
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                reason = reason_of(error)
                assert self.answers.rejected.setdefault(request.request_id, reason) == reason
                return None
            first = self.answers.accepted.setdefault(request.request_id, (method, receipt))
            assert first == (method, receipt), "a retry gets the first answer"
            return receipt


def _make_change(choose: random.Random, cheques: list[str]) -> tuple[str, Any]:
    cheque_id, request_id = choose.choice(cheques), str(UUID(int=choose.getrandbits(128), version=4))
    if choose.random() < 0.5:
        return "EndorseCheque", commands.EndorseChequeRequest(request_id=request_id, cheque_id=cheque_id)
    return "VoidCheque", commands.VoidChequeRequest(
        request_id=request_id, cheque_id=cheque_id, reason=f"changed my mind {uuid4().hex[:4]}"
    )
