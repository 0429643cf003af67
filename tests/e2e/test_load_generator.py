"""The bench's load generator, against servers that limit its calls."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.inventory.v1.command_service_pb2 import ReserveStockRequest
from diptych.ordering.v1.query_service_pb2 import GetOrderRequest

from bench import requests
from bench.load_generator import LoadGenerator, LoadResult, Mixed, write_requests

METHOD = "/test.Service/Call"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("go") is None, reason="Go is missing, which compiles the load generator"),
]


@pytest.fixture(scope="module")
async def generator(tmp_path_factory: pytest.TempPathFactory) -> LoadGenerator:
    return await LoadGenerator.build(tmp_path_factory.mktemp("loadgen"))


class Peer:
    """A server that answers after some seconds, and keeps the requests."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open = 0
        self.most_open = 0
        self.requests: list[bytes] = []
        self.address = ""

    async def call(self, request: bytes, _context: Any) -> bytes:
        self.requests.append(request)
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        await asyncio.sleep(self._seconds)
        self._open -= 1
        return b""


@asynccontextmanager
async def run_peer(streams: int, seconds: float = 0.0) -> AsyncIterator[Peer]:
    """Run a server that accepts this many calls at a time on a connection."""
    peer = Peer(seconds)
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", streams)])
    handlers: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(peer.call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield peer
    await server.stop(None)


async def send(
    generator: LoadGenerator, peer: Peer, folder: Path, messages: Any, **options: Any
) -> LoadResult:
    write_requests(folder / "requests", messages)
    return await generator.run(peer.address, METHOD, folder / "requests", token="", **options)


async def test_calls_beyond_the_servers_limit_wait_and_count_from_when_they_were_due(
    generator: LoadGenerator, tmp_path: Path
) -> None:
    async with run_peer(streams=4, seconds=0.05) as peer:
        options = {"count": 40, "rate": 1_000.0, "in_flight": 100, "connections": 1}
        result = await send(generator, peer, tmp_path, requests.generate_orders(1), **options)
    assert (result.statuses, result.unsent) == ({"0": 40}, 0)
    assert peer.most_open == 4
    assert result.latency["100"] > 400, "of the last ones, nine times four calls took their turn before"


async def test_a_call_whose_deadline_passes_while_it_waits_is_not_sent(
    generator: LoadGenerator, tmp_path: Path
) -> None:
    async with run_peer(streams=1, seconds=0.3) as peer:
        options = {"count": 10, "rate": 1_000.0, "in_flight": 100, "connections": 1, "deadline": 1.0}
        result = await send(generator, peer, tmp_path, requests.generate_orders(1), **options)
    assert sum(result.statuses.values()) == 10
    assert result.statuses["4"] >= 10 - len(peer.requests) > 0


@pytest.mark.parametrize("in_flight", [1, 32])
async def test_a_closed_loop_ends_at_a_server_with_few_streams(
    generator: LoadGenerator, tmp_path: Path, in_flight: int
) -> None:
    async with run_peer(streams=2) as peer:
        options = {"count": 500, "in_flight": in_flight, "connections": 1}
        result = await send(generator, peer, tmp_path, requests.generate_orders(3), **options)
    assert result.statuses == {"0": 500}
    assert peer.most_open <= 2


async def test_each_call_of_a_repeated_command_has_its_own_request_id(
    generator: LoadGenerator, tmp_path: Path
) -> None:
    async with run_peer(streams=100) as peer:
        await send(generator, peer, tmp_path, requests.generate_reservations(2), count=300, fresh_ids=True)
    sent = [ReserveStockRequest.FromString(request) for request in peer.requests]
    assert len({request.request_id for request in sent}) == 300
    assert all(request.request_id == request.reservation_id for request in sent)
    assert all(len(request.request_id) == 36 and request.request_id[14] == "4" for request in sent)


async def test_requests_without_request_ids_are_refused_if_each_call_is_to_have_one(
    generator: LoadGenerator, tmp_path: Path
) -> None:
    async with run_peer(streams=100) as peer:
        with pytest.raises(RuntimeError, match="a request does not begin with a request id"):
            await send(generator, peer, tmp_path, [GetOrderRequest(order_id="o-1")], count=1, fresh_ids=True)


async def test_a_mix_repeats_commands_under_new_request_ids(generator: LoadGenerator, tmp_path: Path) -> None:
    write_requests(tmp_path / "commands", requests.generate_reservations(2))
    async with run_peer(streams=3) as queries, run_peer(streams=3) as commands:
        mixed = Mixed(commands.address, METHOD, tmp_path / "commands", every=5)
        result = await send(
            generator, queries, tmp_path, requests.generate_orders(1), seconds=0.5, in_flight=20, mixed=mixed
        )
    assert result.mixed is not None
    assert result.mixed.ok == len(set(commands.requests)) > 10
    assert max(queries.most_open, commands.most_open) <= 3 * 4, "on four connections"
