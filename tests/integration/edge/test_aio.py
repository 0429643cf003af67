"""What only grpc.aio does: gRPC core sheds calls, and each method has an intake."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.tcp_ports import free_port
from runtime.grpc import server
from runtime.grpc.aio import server as aio_server
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from tests.support.harness import toy_server
from tests.support.harness.callers import Issuer
from tests.support.harness.toy_process import SERVING, toy_process
from tests.support.harness.toy_server import MAX_PENDING
from tests.support.harness.waiting import until


@pytest.fixture(scope="module")
def grpc_server() -> str:
    """Replace the fixture that runs tests on both servers."""
    return "grpc.aio"


async def test_excess_calls_are_shed_at_once_and_others_and_probes_answered(
    tmp_path: Path,
) -> None:
    probe_address, release = f"127.0.0.1:{free_port()}", tmp_path / "release"
    environment = {"DIPTYCH_QUERY_PROBE_ADDRESS": probe_address, "TOY_RELEASE": str(release)}
    async with (
        toy_process(tmp_path, environment=environment) as toy,
        grpc.aio.insecure_channel(probe_address) as channel,
    ):
        await toy.wait_serving()
        probe: Any = health_pb2_grpc.HealthStub(channel)
        await probe.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        calls = [asyncio.create_task(toy.get(f"c-{n}" if n else "block")) for n in range(20 * MAX_PENDING)]
        check = asyncio.ensure_future(probe.Check(health_pb2.HealthCheckRequest(), timeout=60))
        await until(lambda: any(call.done() for call in calls))  # the process itself is still blocked
        release.touch()
        assert (await check).status == SERVING
        results = await asyncio.gather(*calls, return_exceptions=True)
        shed = [result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert set(shed) == {StatusCode.CANCELLED}
        assert len(results) - len(shed) >= MAX_PENDING
        assert (await toy.get("c-1")).cheque_id == "c-1"


async def test_a_server_whose_intake_fails_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    async def fail(intake: Any, path: bytes) -> None:
        raise RuntimeError(f"planted for {path!r}")

    monkeypatch.setattr(aio_server._CallIntake, "_request_registered_call", fail)
    issuer = Issuer(tmp_path / "jwks.json")
    settings = Settings(jwks=str(issuer.path), stop_grace=1.0)
    edge = server.build(settings, toy_server.services(), address="127.0.0.1:0", probe=toy_server.ready)
    lifecycle = Lifecycle(settings)
    async with asyncio.timeout(10):
        await edge.serve(lifecycle)
    assert lifecycle.failed, "so that the exit code is not 0"
