"""`make observe`: the local stack is seen in Prometheus and Zipkin, and missing parts cost one line each."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub

from devstack import tokens
from devstack.observe.programs import ALERTMANAGER, JAVA, PROMETHEUS
from devstack.tcp_ports import is_free
from operations.processes import COMMAND_SERVER, KINDS
from runtime.process.settings import Settings
from tests.support.harness.local_stack import LocalStack
from tests.support.harness.observers import get_json, query, require, require_zipkin, without_programs
from tests.support.harness.shop import order_of
from tests.support.harness.waiting import until

if TYPE_CHECKING:  # this exists for the type checker alone
    from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceAsyncStub

pytestmark = pytest.mark.long


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStack]:
    local = LocalStack(tmp_path, observed=True)
    yield local
    await local.close()


def printed_url(local: LocalStack, part: str) -> str:
    (url,) = re.findall(rf"^  {part} +(http\S+)", local.output, re.MULTILINE)
    return str(url)


async def place_order(local: LocalStack) -> None:
    settings = Settings(jwks=str(local.folder / ".diptych/jwks.json"))
    token = tokens.mint(
        settings, ["ordering.place", "ordering.own-prices", "ordering.all"], "alice", timedelta(minutes=5)
    )
    async with grpc.aio.insecure_channel(local.addresses[COMMAND_SERVER.variable]) as channel:
        orders: CommandServiceAsyncStub = CommandServiceStub(channel)
        await orders.PlaceOrder(order_of("ada"), metadata=(("authorization", f"Bearer {token}"),))


async def test_an_order_is_seen_in_prometheus_and_zipkin(local: LocalStack) -> None:
    require(PROMETHEUS, ALERTMANAGER, JAVA)
    await local.start({"OBSERVE_ZIPKIN": str(await require_zipkin())})
    prometheus, zipkin = printed_url(local, "Prometheus"), printed_url(local, "Zipkin")
    await place_order(local)
    services = {"command_server", "relay", "projector"}
    await until(lambda: services <= set(get_json(f"{zipkin}/api/v2/services")), 60)
    await until(lambda: len(query(prometheus, "up == 1")) == len(KINDS), 30)
    await local.press_ctrl_c()
    assert local.output.splitlines()[-1] == "Stopped"
    urls = (prometheus, zipkin, printed_url(local, "Alertmanager"))
    assert all(is_free(int(url.rpartition(":")[2])) for url in urls)


async def test_missing_parts_cost_one_line_each(local: LocalStack, tmp_path: Path) -> None:
    await local.start(without_programs(tmp_path))
    for part in ("Prometheus", "Alertmanager", "Java, for Zipkin,"):
        (line,) = [line for line in local.output.splitlines() if line.startswith(f"{part} is missing")]
        assert "apt install" in line
    assert await local.press_ctrl_c() == 0
