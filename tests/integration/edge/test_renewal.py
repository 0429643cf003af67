"""h2corn has no greatest age of connections: another one takes over the socket, and the first one ends."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime.grpc import server
from runtime.grpc.h2corn import listener
from runtime.grpc.h2corn.listener import OWN_DESCRIPTORS, PROBE_CONNECTIONS, limit_connections
from runtime.process.settings import Settings
from tests.support.harness import toy_server
from tests.support.harness.callers import Issuer
from tests.support.harness.waiting import until


@pytest.fixture(scope="module")
def grpc_server() -> str:
    """Replace the fixture that runs tests on both servers."""
    return "h2corn"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Any]:
    settings = Settings(jwks=str(Issuer(tmp_path / "jwks.json").path), grpc_server="h2corn", stop_grace=1.0)
    edge: Any = server.build(settings, toy_server.services(), address="127.0.0.1:0", probe=toy_server.ready)
    await edge.start()
    yield edge
    await edge.stop()


async def watch(edge: Any) -> grpc.StatusCode:
    """Watch the health by a connection of its own until the watch ends; return its status."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}", options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        call = stub.Watch(health_pb2.HealthCheckRequest())
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def test_watches_outlast_a_renewal_and_end_as_unavailable_some_time_later(
    edge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LONGEST_CALL", 1.0)
    (taker,) = edge._listeners
    await taker._renew()  # so that the h2corn of the watches has the shorter time
    await until(lambda: len(taker._serving) == 1)
    threads = threading.active_count()
    watches = [asyncio.create_task(watch(edge)) for _ in range(50)]
    await until(lambda: len(taker._application._calls) == 50)
    await taker._renew()
    await asyncio.sleep(0.3)
    assert not any(watch.done() for watch in watches)
    assert set(await asyncio.gather(*watches)) == {grpc.StatusCode.UNAVAILABLE}
    await until(lambda: len(taker._serving) == 1)
    assert threading.active_count() <= threads
    assert not taker._application._calls


async def test_a_renewal_that_fails_is_repeated(edge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (taker,) = edge._listeners
    first, failures = taker._server, iter([OSError("planted"), RuntimeError("planted")])
    build = listener.build_config

    def fail(*arguments: Any) -> Any:
        if error := next(failures, None):
            raise error
        return build(*arguments)

    monkeypatch.setattr(listener, "build_config", fail)
    monkeypatch.setattr(listener, "RENEWAL_INTERVAL", 0.05)
    renewing = asyncio.create_task(taker._renew_at_times())
    await until(lambda: taker._server is not first)
    renewing.cancel()


async def test_a_listener_that_stops_during_a_renewal_leaves_nothing_behind(edge: Any) -> None:
    (taker,) = edge._listeners
    taker._tasks.append(asyncio.create_task(taker._renew()))
    await asyncio.sleep(0)
    await edge.stop()
    assert not taker._serving
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", edge.port)


async def test_systemd_is_not_notified(edge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """h2corn would say at each renewal that the process stops, and systemd would kill it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        (taker,) = edge._listeners
        await taker._renew()
        await until(lambda: len(taker._serving) == 1)
        with pytest.raises(BlockingIOError):
            notified.recv(1000)


@pytest.mark.parametrize("descriptors", [64, 256, 1_024, 1_048_576])
def test_two_h2corns_have_fewer_connections_than_the_process_descriptors(descriptors: int) -> None:
    connections = limit_connections(descriptors)
    assert connections >= PROBE_CONNECTIONS
    assert 2 * connections <= max(descriptors - OWN_DESCRIPTORS, 2 * PROBE_CONNECTIONS)
