"""The relay stands still, and one caller waits for its writes with hundreds of queries of a saga."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from diptych.sagas.v1 import query_service_pb2 as queries
from diptych.sagas.v1.query_service_pb2_grpc import QueryServiceStub

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROCESS_MANAGER, RELAY
from tests.support.harness.invariants import verify_stack
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.waiting import until

SAGA = "fulfilment.fulfilment"
CALLS, READS, MAX_WAITS = 500, 50, 250
AWAY = 4.0
"""Seconds for which the relay stands still."""


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path_factory.mktemp("sagas"), process_managers=1) as stack:
        yield stack


@pytest.mark.long
@pytest.mark.parametrize("deadline", [1.5, 3600.0])
async def test_waiting_queries_end_in_time_and_slow_no_other_caller(stack: Stack, deadline: float) -> None:
    shop = Shop(stack)
    options = (("grpc.use_local_subchannel_pool", 1),)
    address = stack.of(PROCESS_MANAGER)[0].address
    async with (
        grpc.aio.insecure_channel(address, options=options) as eves,
        grpc.aio.insecure_channel(address, options=options) as adas,
    ):

        async def get(channel: grpc.aio.Channel, order_id: str, token: str, seconds: float) -> str:
            subject = "eve" if channel is eves else "ada"
            metadata = (("authorization", f"Bearer {stack.token('sagas.read', subject=subject)}"),)
            stub: Any = QueryServiceStub(channel)
            request = queries.GetSagaRequest(saga=SAGA, id=order_id, at_least_as_fresh=token)
            try:
                await stub.GetSaga(request, metadata=metadata, timeout=seconds)
            except grpc.aio.AioRpcError as error:
                return reason_of(error) or error.code().name
            return "OK"

        before = await shop.place(order_of("ada"))
        assert await get(adas, before.aggregate_id, before.consistency_token, 20) == "OK"
        clock = asyncio.get_running_loop().time
        start = clock()
        reads = [get(eves, before.aggregate_id, "", 60) for _ in range(CALLS)]
        assert set(await asyncio.gather(*reads)) == {"OK"}
        slowness = clock() - start
        """Seconds that this machine takes for as many calls that do not wait."""
        relay = stack.of(RELAY)[0]
        relay.child.freeze()
        try:
            late = await shop.place(order_of("eve"))
            start = clock()
            waiting = [
                asyncio.create_task(get(eves, late.aggregate_id, late.consistency_token, deadline + slowness))
                for _ in range(CALLS)
            ]
            for token in ("", before.consistency_token):
                assert {await get(adas, before.aggregate_id, token, 5) for _ in range(READS)} == {"OK"}
            outcomes = Counter(await asyncio.gather(*waiting))
            took = clock() - start
        finally:
            relay.child.thaw()
        print(f"{outcomes} after {took:.2f} s, slowness {slowness:.2f} s")
        # On a machine that has no time for the server, an answer can be late after all.
        overdue = outcomes.pop("DEADLINE_EXCEEDED", 0)
        assert overdue <= (CALLS // 10 if deadline < 5 else 0)
        assert outcomes["TOO_MANY_WAITS"] <= CALLS - MAX_WAITS
        assert outcomes["VIEW_BEHIND"] + outcomes["TOO_MANY_WAITS"] == CALLS - overdue
        assert took < 10 + 2 * slowness  # the cap is 5 s
        assert await get(eves, late.aggregate_id, late.consistency_token, 20) == "OK"
    await shop.close()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


@pytest.mark.long
async def test_answers_say_how_old_they_are_while_the_relay_is_away(stack: Stack) -> None:
    shop, relay = Shop(stack), stack.of(RELAY)[0]
    metadata = (("authorization", f"Bearer {stack.token('sagas.read', subject='ada')}"),)
    async with grpc.aio.insecure_channel(stack.of(PROCESS_MANAGER)[0].address) as channel:
        stub: Any = QueryServiceStub(channel)

        async def read_bound(order_id: str) -> int:
            """Return the bound in milliseconds of an answer, which may be an error; 0 for none."""
            call = stub.GetSaga(queries.GetSagaRequest(saga=SAGA, id=order_id), metadata=metadata)
            with suppress(grpc.aio.AioRpcError):
                await call
            return int(dict(await call.trailing_metadata() or ()).get("diptych-staleness-ms", 0))

        async def is_current() -> bool:
            return 0 < await read_bound("none") < 5_000

        await until(is_current)
        clock = asyncio.get_running_loop().time
        relay.child.freeze()
        try:
            late = await shop.place(order_of("eve"))
            committed_by = clock()
            while (age := clock() - committed_by) < AWAY:
                assert await read_bound(late.aggregate_id) >= age * 1000
                await asyncio.sleep(0.1)
        finally:
            relay.child.thaw()
        await until(is_current)
    await shop.close()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
