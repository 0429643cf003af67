"""A checker of `diptych-staleness-ms`: no answer may be older than it says.

How it works. A writer endorses cheques and records when each command was acknowledged: its event was
committed by then. Readers get cheques and compare. The oldest event that was committed before a call began
and is not in the answer gives the true age, and the answer's bound must not be smaller. All times are of
this process's monotonic clock, so that no clocks are compared.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

import grpc

from devstack.stack import Stack
from operations.processes import QUERY_SERVER
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.traffic import Traffic
from tests.support.ledger.clerk import cheque_of
from tests.support.ledger.stubs import commands, queries, queries_grpc

CHEQUES = 20
WRITE_PAUSE, READ_PAUSE = 0.02, 0.01
"""Seconds between two commands, and between two queries of a reader."""
STALENESS = "diptych-staleness-ms"


@dataclass
class Observations:
    """What the readers have seen. Ages and bounds are in milliseconds."""

    answers: int = 0
    without_bound: int = 0
    largest_age: float = 0.0
    largest_excess: float = 0.0
    """The largest difference between a bound and the true age."""
    smallest_bound_behind: float = float("inf")
    """The smallest bound of an answer that was more than a second old."""
    too_small: list[tuple[float, float]] = field(default_factory=list)
    """The true ages of answers whose bounds were smaller, with these."""
    went_back: list[tuple[str, int, int]] = field(default_factory=list)
    """Cheques whose version went back, with both versions."""
    errors: dict[str, int] = field(default_factory=dict)


class StalenessChecks:
    """Writes and reads cheques of a stack, and compares the bounds of the answers with their true ages."""

    def __init__(self, stack: Stack, traffic: Traffic, seed: int) -> None:
        print(f"seed {seed}")
        self._random = random.Random(seed)
        self._traffic = traffic
        self._channels = [
            grpc.aio.insecure_channel(
                process.address,
                options=(("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)),
            )
            for process in stack.of(QUERY_SERVER)
        ]
        self._stubs = [queries_grpc.QueryServiceStub(channel) for channel in self._channels]
        self._acknowledged: dict[str, list[float]] = {}
        """By cheque: the moments at which its versions, from 1 on, were acknowledged."""
        self._seen: dict[tuple[int, str], int] = {}
        self.observations = Observations()
        self.stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["StalenessChecks"]:
        """Write cheques, then write and read until the block ends."""
        for _ in range(CHEQUES):
            receipt = await self._traffic.send("WriteCheque", cheque_of("staleness"), random.Random(0))
            assert receipt is not None
            self._acknowledged[receipt.aggregate_id] = [monotonic()]
        tasks = [asyncio.create_task(self._write())]
        tasks += [asyncio.create_task(self._read(number)) for number in range(len(self._stubs))]
        try:
            yield self
        finally:
            self.stopped = True
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for channel in self._channels:
                await channel.close()
        assert not [outcome for outcome in outcomes if outcome is not None], outcomes

    def take(self) -> Observations:
        """Return what was seen since the last call."""
        taken, self.observations = self.observations, Observations()
        return taken

    async def _write(self) -> None:
        ids = sorted(self._acknowledged)
        while not self.stopped:
            cheque_id = self._random.choice(ids)
            request_id = str(UUID(int=self._random.getrandbits(128), version=4))
            request = commands.EndorseChequeRequest(request_id=request_id, cheque_id=cheque_id)
            receipt = await self._traffic.send("EndorseCheque", request, random.Random(0))
            if receipt is not None and receipt.version > len(self._acknowledged[cheque_id]):
                self._acknowledged[cheque_id].append(monotonic())
            await asyncio.sleep(WRITE_PAUSE)

    async def _read(self, number: int) -> None:
        ids, bearer = sorted(self._acknowledged), self._traffic._bearer
        while not self.stopped:
            cheque_id, began = self._random.choice(ids), monotonic()
            call = self._stubs[number].GetCheque(
                queries.GetChequeRequest(cheque_id=cheque_id), metadata=bearer, timeout=3
            )
            try:
                version = (await call).cheque.version
            except grpc.aio.AioRpcError as error:
                reason = reason_of(error)
                self.observations.errors[reason] = self.observations.errors.get(reason, 0) + 1
            else:
                trailing = dict(await call.trailing_metadata() or ())
                bound = float(trailing[STALENESS]) if STALENESS in trailing else None
                self._compare(number, cheque_id, version, began, bound)
            await asyncio.sleep(READ_PAUSE)

    def _compare(self, number: int, cheque_id: str, version: int, began: float, bound: float | None) -> None:
        seen, observations = self._seen.get((number, cheque_id), 0), self.observations
        if version < seen:
            observations.went_back.append((cheque_id, seen, version))
        self._seen[number, cheque_id] = max(seen, version)
        missing = self._acknowledged[cheque_id][version:]
        age = max(0.0, (began - missing[0]) * 1000) if missing else 0.0
        observations.answers += 1
        observations.largest_age = max(observations.largest_age, age)
        if bound is None:
            observations.without_bound += 1
            return
        if age > 1000:
            observations.smallest_bound_behind = min(observations.smallest_bound_behind, bound)
        observations.largest_excess = max(observations.largest_excess, bound - age)
        if bound < age:
            observations.too_small.append((age, bound))
