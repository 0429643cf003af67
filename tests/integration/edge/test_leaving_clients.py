"""Clients that leave, do not read, or do not end: what they leave behind."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from diptych.access.v1 import access_pb2

from runtime.grpc import server
from runtime.grpc.server import Service
from runtime.process.settings import Settings
from tests.support.harness import toy_server
from tests.support.harness.callers import Issuer
from tests.support.harness.made_service import made_service
from tests.support.harness.raw_http2 import (
    END_HEADERS,
    HEADERS,
    RST_STREAM,
    RawConnection,
    encode_frame,
    encode_headers,
    encode_message,
    grpc_headers,
    raw_connection,
)
from tests.support.harness.toy_process import toy_process
from tests.support.harness.waiting import until

LARGE = bytes(6_000_000)
"""A response that no server sends to a client that does not read it."""


class Streaming:
    """A server with a method that streams, and how its handlers ended."""

    def __init__(self, issuer: Issuer) -> None:
        self.endings: list[type[BaseException]] = []
        service = made_service(
            "Leaving", rule=access_pb2.Rule(scope="ledger.read", any_object=True), streams=True
        )
        settings = Settings(jwks=str(issuer.path), stop_grace=1.0)
        services = [Service(service, {"Do": self._do})]
        self.edge = server.build(settings, services, address="127.0.0.1:0", probe=toy_server.ready)
        token = [(key.encode(), value.encode()) for key, value in issuer.bearer()]
        self.headers = grpc_headers(b"/test.Leaving/Do", *token)

    async def _do(self, request: Any, context: Any) -> None:
        try:
            while True:
                await context.write(LARGE if request.cheque_id == "large" else b"")
                await asyncio.sleep(0.001)
        except BaseException as error:
            self.endings.append(type(error))
            raise

    async def begin(self, connection: RawConnection, *headers: Any, cheque_id: bytes = b"small") -> int:
        """Begin a call, and do not read what comes."""
        stream = connection.take_stream()
        block = encode_headers([*self.headers, *headers])
        data = encode_frame(0, 1, stream, encode_message(b"\n" + bytes([len(cheque_id)]) + cheque_id))
        await connection.send(encode_frame(HEADERS, END_HEADERS, stream, block) + data)
        return stream


@pytest.fixture
async def streaming(tmp_path: Path, grpc_server: str) -> AsyncIterator[Streaming]:
    streaming = Streaming(Issuer(tmp_path / "jwks.json"))
    await streaming.edge.start()
    yield streaming
    await streaming.edge.stop()


@pytest.mark.parametrize("leaves", ["by a reset", "by the end of its connection"])
async def test_a_client_that_leaves_its_stream_cancels_the_handler(streaming: Streaming, leaves: str) -> None:
    """An error would be logged as one of the server."""
    for _ in range(5):
        async with raw_connection(streaming.edge.port) as connection:
            calls = [await streaming.begin(connection) for _ in range(10)]
            await asyncio.sleep(0.1)
            if leaves == "by a reset":
                for stream in calls:
                    await connection.send(encode_frame(RST_STREAM, 0, stream, bytes([0, 0, 0, 8])))
                await until(lambda: len(streaming.endings) % 10 == 0)
    await until(lambda: len(streaming.endings) == 50)
    assert set(streaming.endings) == {asyncio.CancelledError}


async def test_a_stream_that_is_not_read_ends_at_its_deadline(streaming: Streaming) -> None:
    """On grpc.aio the handler gets an error of its own kind."""
    async with raw_connection(streaming.edge.port) as connection:
        await streaming.begin(connection, (b"grpc-timeout", b"300m"), cheque_id=b"large")
        await until(lambda: len(streaming.endings) == 1)


async def test_clients_that_stay_do_not_delay_the_stop(tmp_path: Path) -> None:
    """One sends headers without end, one nothing, one half a call, one is connected, one does not read."""
    async with toy_process(tmp_path, environment={"DIPTYCH_STOP_GRACE": "1"}) as toy:
        await toy.wait_serving()
        port = int(toy.address.rpartition(":")[2])
        headers = grpc_headers(b"/acme.ledger.v1.QueryService/GetCheque")
        headers += [(key.encode(), value.encode()) for key, value in toy.metadata]
        block = encode_headers(headers)
        async with raw_connection(port) as pending, raw_connection(port) as half, raw_connection(port):
            _, silent = await asyncio.open_connection("127.0.0.1", port)
            await pending.send(encode_frame(HEADERS, 0, pending.take_stream(), block))
            await half.send(encode_frame(HEADERS, END_HEADERS, half.take_stream(), block))
            await toy.get("c-1")
            toy.process.send_signal(signal.SIGTERM)
            assert await toy.wait_ended(6) == 0
            silent.close()
        assert toy.stderr() == ""
