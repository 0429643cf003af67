"""What a hostile client can try: each test does one thing of it, and everyone else is served.

During and after each the server answers another client, has not grown by more than MAX_GROWTH, and still
runs. tests/integration/edge/test_raw_calls.py has the calls that are malformed in themselves.
"""

import asyncio
import gzip
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych_client import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.process_cost import read_memory
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    encode_frame,
    encode_headers,
    encode_message,
    grpc_headers,
    raw_connection,
)
from tests.support.harness.toy_process import SERVING, Toy, toy_process
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries, queries_grpc

PATH = b"/acme.ledger.v1.QueryService/GetCheque"
MAX_GROWTH = 256_000_000
"""Bytes by which a server may grow during one abuse. Calls without a message take 190 MB on h2corn, which
has a limit for all calls; without it 60,000 took 580 MB."""
FLOOD = 20_000
LARGE_ID = b"large-200000"
"""A cheque id whose answer has as many bytes."""


@pytest.fixture(scope="module")
async def module_toy(tmp_path_factory: pytest.TempPathFactory, grpc_server: str) -> AsyncIterator[Toy]:
    async with toy_process(tmp_path_factory.mktemp("toy")) as toy:
        await toy.wait_serving()
        yield toy


class Bystander:
    """Another client, which calls one after the other and expects an answer each time."""

    def __init__(self, toy: Toy) -> None:
        self._toy = toy
        self._answered = 0
        self._calling = asyncio.create_task(self._call())

    async def _call(self) -> None:
        while True:
            try:
                assert (await self._toy.get("c-1")).cheque_id == "c-1"
            except grpc.aio.AioRpcError as error:
                # Servers shed calls while many wait for their message; clients repeat such calls.
                if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
                    raise
            else:
                self._answered += 1

    async def is_served(self) -> None:
        """Wait for further answers, which were asked for from now on."""
        expected = self._answered + 20
        await until(lambda: self._answered >= expected or self._calling.done(), 30)
        assert not self._calling.done(), self._calling.exception()

    async def leave(self) -> None:
        await cancel_and_wait(self._calling)


@pytest.fixture
async def bystander(module_toy: Toy) -> AsyncIterator[Bystander]:
    """Yield the other client; after the test it is served, and the server is what it was."""
    before = read_memory(module_toy.process.pid)
    async with module_toy.reconnected() as other:
        bystander = Bystander(other)
        yield bystander
        await bystander.is_served()
        await bystander.leave()
    async with module_toy.reconnected() as other:
        assert (await other.get("c-1")).cheque_id == "c-1"
    assert module_toy.process.returncode is None
    assert module_toy.stderr() == ""
    assert read_memory(module_toy.process.pid) - before < MAX_GROWTH


@pytest.fixture
def toy(module_toy: Toy, bystander: Bystander) -> Toy:
    return module_toy


def connect(toy: Toy) -> Any:
    return raw_connection(int(toy.address.rpartition(":")[2]))


def headers_of(toy: Toy) -> bytes:
    """Return the header block of an authenticated call."""
    token = [(key.encode(), value.encode()) for key, value in toy.metadata]
    return encode_headers(grpc_headers(PATH, *token))


async def begin(connection: RawConnection, block: bytes) -> int:
    """Send the headers of a call without its message; return the stream."""
    stream = connection.take_stream()
    await connection.send(encode_frame(HEADERS, END_HEADERS, stream, block))
    return stream


async def test_a_client_that_reads_nothing(toy: Toy, bystander: Bystander) -> None:
    """It asks for 40 MB in all, and leaves every window as it is."""
    message = encode_message(b"\n" + bytes([len(LARGE_ID)]) + LARGE_ID)
    async with connect(toy) as connection:
        for _ in range(200):
            stream = await begin(connection, headers_of(toy))
            await connection.send(encode_frame(DATA, END_STREAM, stream, message))
        await bystander.is_served()


async def test_a_body_without_end(toy: Toy) -> None:
    async with connect(toy) as connection:
        stream = await begin(connection, headers_of(toy))
        await connection.send(encode_frame(DATA, 0, stream, encode_message(b"", length=100_000_000)))
        for _ in range(2_000):
            await connection.send(encode_frame(DATA, 0, stream, bytes(16_000)))
        answer = await connection.read_answer(stream)
    assert answer.grpc_status not in (None, 0) or answer.is_reset or answer.is_closed


async def test_a_message_that_is_small_until_it_is_unpacked(toy: Toy) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    block = headers_of(toy) + encode_headers([(b"grpc-encoding", b"gzip")])
    async with connect(toy) as connection:
        stream = await begin(connection, block)
        message = encode_message(bomb, compressed=1)
        for start in range(0, len(message), 16_000):
            await connection.send(encode_frame(DATA, 0, stream, message[start : start + 16_000]))
        await connection.send(encode_frame(DATA, END_STREAM, stream))
        answer = await connection.read_answer(stream)
    assert answer.grpc_status != 0


async def test_calls_that_never_send_their_message(toy: Toy, bystander: Bystander, grpc_server: str) -> None:
    async with AsyncExitStack() as connections:
        for _ in range(60 if grpc_server == "h2corn" else 20):
            connection = await connections.enter_async_context(connect(toy))
            await connection.send(
                b"".join(
                    encode_frame(HEADERS, END_HEADERS, connection.take_stream(), headers_of(toy))
                    for _ in range(FLOOD // 20)
                )
            )
        await bystander.is_served()


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(SETTINGS, 0, 0),
        encode_frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff" * 100),
        encode_frame(PING, 0, 0, bytes(8)),
        encode_frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        encode_frame(DATA, 0, 1),
        encode_frame(RST_STREAM, 0, 1, bytes(4)),
        encode_frame(99, 0, 0, bytes(16)),
    ],
    ids=["settings", "many settings", "ping", "window", "empty data", "reset", "unknown"],
)
async def test_a_flood_of_frames(toy: Toy, frame: bytes) -> None:
    async with connect(toy) as connection:
        await begin(connection, headers_of(toy))
        for _ in range(FLOOD // 100):
            await connection.send(frame * 100)


async def test_a_flood_of_empty_continuations(toy: Toy) -> None:
    async with connect(toy) as connection:
        stream = connection.take_stream()
        await connection.send(encode_frame(HEADERS, 0, stream, headers_of(toy)))
        for _ in range(FLOOD // 100):
            await connection.send(encode_frame(CONTINUATION, 0, stream) * 100)


async def test_calls_that_are_reset_at_once(toy: Toy) -> None:
    reset = bytes([0, 0, 0, 8])
    for _ in range(10):
        async with connect(toy) as connection:
            for _ in range(FLOOD // 100):
                stream = connection.take_stream()
                headers = encode_frame(HEADERS, END_HEADERS, stream, headers_of(toy))
                await connection.send(headers + encode_frame(RST_STREAM, 0, stream, reset))


async def test_metadata_that_is_too_large(toy: Toy) -> None:
    large = headers_of(toy) + encode_headers([(b"x-large", b"a" * 200_000)])
    async with connect(toy) as connection:
        stream = connection.take_stream()
        await connection.send(encode_frame(HEADERS, END_STREAM, stream, large[:16_000]))
        for start in range(16_000, len(large), 16_000):
            flags = END_HEADERS if start + 16_000 >= len(large) else 0
            await connection.send(encode_frame(CONTINUATION, flags, stream, large[start : start + 16_000]))
        answer = await connection.read_answer(stream)
    is_refused = answer.headers.get(":status", "200") != "200"
    assert answer.grpc_status not in (None, 0) or is_refused or answer.is_reset or answer.is_closed


async def test_conversations_with_wrong_bytes(toy: Toy) -> None:
    print(f"seed {(seed := secrets.randbits(32))}")
    choose = random.Random(seed)
    call = encode_frame(HEADERS, END_HEADERS, 1, headers_of(toy))
    whole = (
        PREFACE + encode_frame(SETTINGS, 0, 0) + call + encode_frame(DATA, END_STREAM, 1, encode_message(b""))
    )

    async def converse() -> None:
        content = bytearray(whole)
        for _ in range(choose.randint(1, 8)):
            content[choose.randrange(len(content))] = choose.randrange(256)
        host, _, port = toy.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(content)
        writer.write_eof()
        try:
            async with asyncio.timeout(2):
                while await reader.read(10_000):
                    pass
        except (TimeoutError, ConnectionError):
            pass  # the server may wait for more
        writer.close()

    for _ in range(20):
        await asyncio.gather(*(converse() for _ in range(20)))


async def test_calls_that_their_clients_give_up(toy: Toy) -> None:
    """Half are cancelled, half expire; a call of the same client goes on."""
    async with toy.reconnected() as client:
        going_on = asyncio.create_task(client.get("slow-3000"))
        for _ in range(10):
            calls = [asyncio.ensure_future(client.get("slow-60000", seconds=0.2)) for _ in range(20)]
            cancelled = [asyncio.ensure_future(client.get("slow-60000")) for _ in range(10)]
            await asyncio.sleep(0.1)
            for call in cancelled:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            codes = {each.code() for each in results if isinstance(each, grpc.aio.AioRpcError)}
            assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert (await going_on).cheque_id == "slow-3000"


async def test_callers_beside_one_that_cancels_many_calls(toy: Toy) -> None:
    """On h2corn 200 cancelled calls close the connection of them all; our client repeats the others."""
    token = str(toy.metadata[0][1]).removeprefix("Bearer ")
    async with aio.connect(toy.address, token=token) as connection:
        get: Any = queries_grpc.QueryServiceStub(connection.channel).GetCheque
        answered, is_over = 0, False

        async def call_on() -> None:
            nonlocal answered
            while not is_over:
                await connection.query(get, queries.GetChequeRequest(cheque_id="slow-20"))
                answered += 1

        callers = [asyncio.create_task(call_on()) for _ in range(8)]
        for _ in range(12):
            calls = [
                get(queries.GetChequeRequest(cheque_id="slow-60000"), metadata=toy.metadata)
                for _ in range(50)
            ]
            expected = answered + 20
            await until(lambda expected=expected: answered >= expected)  # type: ignore[misc]
            for call in calls:
                call.cancel()
        is_over = True
        await asyncio.gather(*callers)


async def test_a_crowd_of_idle_watches(toy: Toy, bystander: Bystander) -> None:
    async with AsyncExitStack() as channels:
        watches = []
        for _ in range(5):
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(toy.address, options))
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for _ in range(20):  # grpc.aio sheds more at a time
                watches += [aiter(stub.Watch(health_pb2.HealthCheckRequest())) for _ in range(50)]
                answers = await asyncio.gather(*(anext(watch) for watch in watches[-50:]))
                assert {answer.status for answer in answers} == {SERVING}
        await bystander.is_served()


async def test_more_connections_than_descriptors(tmp_path: Path, grpc_server: str) -> None:
    async with toy_process(tmp_path, descriptors=256) as toy:
        await toy.wait_serving()
        writers = []
        for _ in range(300):
            host, _, port = toy.address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
        for writer in writers:
            writer.close()

        async def serves() -> bool:
            async with toy.reconnected() as other:
                return bool((await other.get("c-1")).cheque_id == "c-1")

        await until(serves)
        assert toy.process.returncode is None
