"""Events at the limit of NATS: a command that would exceed it is rejected; the feed never stops unseen."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from diptych.ordering.v1.query_service_pb2 import GetOrderRequest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from devstack.tcp_ports import free_port
from operations.processes import RELAY, explain_health
from tests.support.builders.large_orders import large_order
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.limited_nats import LimitedNats
from tests.support.harness.rpc_failure import read_failure, reason_of
from tests.support.harness.shop import order_of
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long
LOW, HIGH = 30_000, 1024 * 1024
SKUS = [f"sku-{number}" for number in range(10)]


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[LimitedNats]:
    server = LimitedNats(tmp_path / "nats", free_port())
    server.set_max_payload(LOW)
    async with server:
        yield server


@pytest.fixture
async def stack(tmp_path: Path, nats: LimitedNats) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path / "stack", nats_url=nats.url) as stack:
        yield stack


async def wait_until_accepted(caller: Caller) -> str:
    """Place large orders until the server has read the raised limit; return the id of the accepted one."""
    accepted = ""

    async def is_accepted() -> bool:
        nonlocal accepted
        order = large_order("c-1", "a-1", SKUS)
        try:
            await caller.execute(order)
        except grpc.aio.AioRpcError as error:
            assert reason_of(error) == "EVENT_TOO_LARGE"
            return False
        accepted = order.order_id
        return True

    await until(is_accepted)
    return accepted


async def read_fresh(caller: Caller, order: object) -> None:
    receipt = await caller.execute(order)
    await caller.query(
        GetOrderRequest(order_id=receipt.aggregate_id, at_least_as_fresh=receipt.consistency_token)
    )


async def test_a_large_event_is_refused_and_one_recorded_before_blocks_the_feed_visibly(
    stack: Stack, nats: LimitedNats
) -> None:
    caller, (relay,) = (
        Caller(stack, "ordering.place", "ordering.own-prices", "ordering.read"),
        stack.of(RELAY),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.execute(large_order("c-1", "a-1", SKUS))
    info = read_failure(caught.value)
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EVENT_TOO_LARGE")
    assert info.metadata["event"] == "diptych.ordering.v2.OrderPlaced"
    assert int(info.metadata["bytes"]) > LOW > int(info.metadata["most"]) > LOW - 2_000
    await read_fresh(caller, order_of("c-1"))

    nats.set_max_payload(HIGH)
    await wait_until_accepted(caller)
    await read_fresh(caller, order_of("c-1"))

    await relay.stop()
    blocking = await wait_until_accepted(caller)
    nats.set_max_payload(LOW)
    await relay.start(ready=False)
    log = stack_log(stack, relay.name)
    await until(lambda: "Feed blocked by a large event" in log.read_text())
    assert f"ordering.order.{blocking}@1 makes a message of" in log.read_text()
    assert log.read_text().count("Feed blocked by a large event") == 1

    async def is_not_serving() -> bool:
        status, reason = await explain_health(relay.address)
        return status == "NOT_SERVING" and "larger than NATS accepts" in reason

    await until(is_not_serving)

    async def is_refused() -> bool:
        try:
            await caller.execute(large_order("c-1", "a-1", SKUS))
        except grpc.aio.AioRpcError as error:
            return reason_of(error) == "EVENT_TOO_LARGE"
        return False

    await until(is_refused)
    nats.set_max_payload(HIGH)
    await relay.wait_serving()
    await read_fresh(caller, order_of("c-1"))
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
    await caller.close()


def stack_log(stack: Stack, name: str) -> Path:
    return Path(stack.settings.jwks).with_name(f"{name}.log")
