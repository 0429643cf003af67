"""What our listener adds to h2corn: it is followed when it ends, and lets connections go after a while."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime.grpc import server
from runtime.grpc.h2corn import listener
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness import toy_server
from tests.support.harness.callers import Issuer
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.toy_process import toy_process
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries, queries_grpc


@pytest.fixture(scope="module")
def grpc_server() -> str:
    """Replace the fixture that runs tests on both servers."""
    return "h2corn"


class Served:
    """A server on h2corn in the test process."""

    def __init__(self, lifecycle: Lifecycle, edge: server.Server, issuer: Issuer) -> None:
        self.lifecycle = lifecycle
        self.edge = edge
        self._issuer = issuer
        self.task = asyncio.create_task(edge.serve(lifecycle))

    @property
    def listener(self) -> Any:
        return self.edge._listeners[-1]

    async def get(self, channel: grpc.aio.Channel, cheque_id: str = "c-1") -> str:
        request = queries.GetChequeRequest(cheque_id=cheque_id)
        stub: Any = queries_grpc.QueryServiceStub(channel)
        response = await stub.GetCheque(request, metadata=self._issuer.bearer(), wait_for_ready=True)
        return str(response.cheque.cheque_id)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    issuer = Issuer(tmp_path / "jwks.json")
    settings = Settings(jwks=str(issuer.path), grpc_server="h2corn", stop_grace=5.0)
    edge = server.build(settings, toy_server.services(), address="127.0.0.1:0", probe=toy_server.ready)
    served = Served(Lifecycle(settings), edge, issuer)
    await until(lambda: edge.port > 0)
    yield served
    served.lifecycle.stopping.set()
    await served.task


async def test_connections_are_let_go_and_no_call_is_lost(served: Served) -> None:
    """One that is sent in the instant in which its connection ends may be unavailable; clients repeat it."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.edge.port}") as channel:
        slow = asyncio.create_task(served.get(channel, "slow-1000"))
        ended = asyncio.Event()

        counts: list[str] = []
        codes: list[grpc.StatusCode] = []

        async def call() -> None:
            while not ended.is_set():
                try:
                    counts.append(await served.get(channel, "c-1"))
                except grpc.aio.AioRpcError as error:
                    codes.append(error.code())

        calling = [asyncio.create_task(call()) for _ in range(8)]
        for _ in range(10):
            await served.listener._renew()
            expected = len(counts) + 100
            await until(lambda expected=expected: len(counts) >= expected)  # type: ignore[misc]
        ended.set()
        await asyncio.gather(*calling)
        assert set(codes) <= {grpc.StatusCode.UNAVAILABLE}
        assert len(codes) < 20, "two calls in 29,000, on a busy machine"
        assert await slow == "slow-1000"
        await until(lambda: len(served.listener._serving) == 1)


async def test_an_h2corn_that_ends_is_followed_by_another(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.edge.port}") as channel:
        assert await served.get(channel) == "c-1"
        first = served.listener._server
        first.shutdown()
        await until(lambda: served.listener._server not in (None, first))
        assert await served.get(channel) == "c-1"


async def test_an_h2corn_that_cannot_be_followed_ends_the_process(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(listener, "build_config", fail)
    served.listener._server.shutdown()
    async with asyncio.timeout(10):
        await served.lifecycle.stopping.wait()
    assert served.lifecycle.failed, "so that the exit code is not 0"


async def test_watches_without_a_token_leave_places_for_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a client could take all MAX_CALLS by watching the health."""
    monkeypatch.setattr(served.listener._application._public_streams, "_max_waiting", 20)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.edge.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        calls = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(30)]
        await asyncio.gather(*(call.read() for call in calls))
        await until(lambda: sum(call.done() for call in calls) == 10)
        codes = {await call.code() for call in calls if call.done()}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await served.get(channel) == "c-1"


async def test_a_process_without_the_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2corn", None)
    monkeypatch.delitem(sys.modules, "runtime.grpc.h2corn.listener")
    edge = server.build(Settings(grpc_server="h2corn"), address="127.0.0.1:0", probe=toy_server.ready)
    with pytest.raises(StartError, match=r"h2corn is not installed; the extra `diptych\[h2corn\]` has it"):
        await edge.start()


async def test_the_server_is_named_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_GRPC_SERVER", "h2corn")
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        assert (await toy.line("Listening"))["server"] == "h2corn"
        assert toy.stderr() == "", "h2corn prints no banner"


async def test_a_caller_with_too_many_calls_is_refused_and_another_is_served(tmp_path: Path) -> None:
    async with (
        toy_process(tmp_path, environment={"DIPTYCH_GRPC_SERVER": "h2corn"}) as toy,
        toy.reconnected("bob") as other,
    ):
        await toy.wait_serving()
        greedy = [asyncio.ensure_future(toy.get("busy-5")) for _ in range(600)]
        await until(lambda: any(call.done() for call in greedy))
        for _ in range(5):
            assert (await other.get("c-1")).writer == "bob"
            waiting = [call for call in greedy if not call.done()]
            assert len(waiting) > 100, "the other caller does not wait for all of them"
        later = [asyncio.ensure_future(toy.get("busy-5")) for _ in range(600)]
        results = await asyncio.gather(*greedy, *later, return_exceptions=True)
        errors = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert {reason_of(error) for error in errors} == {"OVERLOADED"}
        assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(errors) < 1_100, "those that came first were answered"
