"""A projector stands still, and one caller waits for its writes with hundreds of calls. The others go on."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest

from devstack.stack import Stack
from operations.processes import PROJECTOR, QUERY_SERVER
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.traffic import Traffic
from tests.support.ledger.stubs import queries, queries_grpc

READS = 50
MAX_WAITS = 250
"""Waiting calls of one caller, by default."""


class Reader:
    """Reads cheques at one query server, as one caller with a connection of its own."""

    def __init__(self, stack: Stack, subject: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            stack.of(QUERY_SERVER)[0].address, options=(("grpc.use_local_subchannel_pool", 1),)
        )
        self._queries: Any = queries_grpc.QueryServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {stack.token('ledger.read', subject=subject)}"),)

    async def __aenter__(self) -> "Reader":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def get(self, cheque_id: str, token: str = "", deadline: float = 5.0) -> str:
        """Read a cheque; return OK or the reason of the error."""
        request = queries.GetChequeRequest(cheque_id=cheque_id, at_least_as_fresh=token)
        try:
            await self._queries.GetCheque(request, metadata=self._metadata, timeout=deadline)
        except grpc.aio.AioRpcError as error:
            return reason_of(error) or error.code().name
        return "OK"


@pytest.mark.long
@pytest.mark.parametrize(
    ("calls", "deadline"),
    [
        pytest.param(100, 1.0, id="100 calls with a short deadline"),
        pytest.param(500, 1.5, id="500 calls with a short deadline"),
        pytest.param(500, 3600.0, id="500 calls with an hour"),
    ],
)
async def test_waiting_calls_of_one_caller_end_in_time_and_slow_no_other_caller(
    stack: Stack, traffic: Traffic, calls: int, deadline: float
) -> None:
    async with Reader(stack, "eve") as eve, Reader(stack, "ada") as ada:
        before = await traffic.write("ada")
        assert await ada.get(before.aggregate_id, before.consistency_token) == "OK"
        projector = stack.of(PROJECTOR)[0]
        projector.child.freeze()
        try:
            late = await traffic.write("eve")
            start = asyncio.get_running_loop().time()
            waiting = [
                asyncio.create_task(eve.get(late.aggregate_id, late.consistency_token, deadline))
                for _ in range(calls)
            ]
            for token in ("", before.consistency_token):
                assert {await ada.get(before.aggregate_id, token) for _ in range(READS)} == {"OK"}
            outcomes = Counter(await asyncio.gather(*waiting))
            took = asyncio.get_running_loop().time() - start
        finally:
            projector.child.thaw()
        print(f"{outcomes} after {took:.2f} s")
        # On a machine that has no time for the server, an answer can be late after all.
        overdue = outcomes.pop("DEADLINE_EXCEEDED", 0)
        assert overdue <= (calls // 10 if deadline < 5 else 0)
        refused = max(0, calls - MAX_WAITS)
        assert outcomes["TOO_MANY_WAITS"] <= refused
        assert outcomes["VIEW_BEHIND"] + outcomes["TOO_MANY_WAITS"] == calls - overdue
        assert took < 10  # the cap is 5 s
        assert await eve.get(late.aggregate_id, late.consistency_token, 20) == "OK"
    await assert_consistent(stack, traffic.answers)
