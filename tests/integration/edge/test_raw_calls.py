"""Calls in raw frames that no gRPC client would send: each is answered or reset, and others are served."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.support.builders.raw_calls import RawCall, odd_bodies, odd_calls, random_call
from tests.support.harness.raw_http2 import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Answer,
    encode_frame,
    encode_headers,
    grpc_headers,
    raw_connection,
)
from tests.support.harness.toy_process import Toy, toy_process
from tests.support.harness.waiting import until

SERVICE = b"acme.ledger.v1.QueryService"
PATH = b"/" + SERVICE + b"/GetCheque"
HEALTH = b"/grpc.health.v1.Health/"
REFLECTION = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNIMPLEMENTED, INVALID_ARGUMENT, UNKNOWN, INTERNAL, UNAUTHENTICATED = 12, 3, 2, 13, 16
AT_ONCE = 100
"""Connections at a time. Malformed headers and many unauthenticated calls are answered a second late."""
MAX_LIBRARY_LINES = 60
"""Lines that the libraries of a server may log during a test of some seconds: ten a second of a logger."""


@pytest.fixture(scope="module")
async def module_toy(tmp_path_factory: pytest.TempPathFactory, grpc_server: str) -> AsyncIterator[Toy]:
    async with toy_process(tmp_path_factory.mktemp("toy"), environment={"DIPTYCH_REFLECTION": "1"}) as toy:
        await toy.wait_serving()
        yield toy


@pytest.fixture
async def toy(module_toy: Toy) -> AsyncIterator[Toy]:
    """Yield the toy; after the test it still serves, and has logged little."""
    before = count_library_lines(module_toy)
    yield module_toy
    async with module_toy.reconnected() as other:
        await until(partial(serves, other))
    assert module_toy.process.returncode is None
    assert count_library_lines(module_toy) - before < MAX_LIBRARY_LINES
    assert module_toy.stderr() == ""


async def serves(toy: Toy) -> bool:
    """Return whether the toy answers; it sheds calls while those of a storm wait."""
    try:
        return bool((await toy.get("c-1")).cheque_id == "c-1")
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.CANCELLED
        return False


def count_library_lines(toy: Toy) -> int:
    return sum(line["logger"] != "runtime.grpc.refused_calls" for line in toy.lines())


def port_of(toy: Toy) -> int:
    return int(toy.address.rpartition(":")[2])


async def send(toy: Toy, calls: Iterable[RawCall]) -> dict[str, Answer]:
    """Send each call on a connection of its own; return the answers by name of the call."""
    places = asyncio.Semaphore(AT_ONCE)

    async def send_one(call: RawCall) -> Answer:
        async with places, raw_connection(port_of(toy)) as connection:
            try:
                return await connection.call(call.headers, call.body)
            except TimeoutError:
                raise AssertionError(f"no answer to {call}") from None

    calls = list(calls)
    answers = await asyncio.gather(*(send_one(call) for call in calls))
    return {call.name: answer for call, answer in zip(calls, answers, strict=True)}


@pytest.mark.parametrize("byte", [b"\xff", b"\x80", b"\xc3", b"\xed\xa0\x80"])
async def test_a_path_that_is_no_utf8_is_an_unknown_method(toy: Toy, byte: bytes, grpc_server: str) -> None:
    slow = asyncio.create_task(toy.get("slow-300"))
    answers = await send(
        toy, [RawCall("path", grpc_headers(b"/" + byte)), RawCall("more", grpc_headers(PATH + byte))]
    )
    if grpc_server == "grpc.aio":
        assert {answer.grpc_status for answer in answers.values()} == {UNIMPLEMENTED}
    else:
        assert all(answer.is_reset or answer.is_closed for answer in answers.values())
    assert (await slow).cheque_id == "slow-300", "calls in progress go on"


@pytest.mark.parametrize("path", [PATH.replace(b"Get", b"%47et"), PATH + b"?x=1", b"/" + PATH])
async def test_another_spelling_of_a_path_is_an_unknown_method(toy: Toy, path: bytes) -> None:
    """Otherwise a rule of a proxy for the path would not hold for its other spelling."""
    answers = await send(toy, [RawCall("spelling", grpc_headers(path))])
    assert answers["spelling"].grpc_status == UNIMPLEMENTED


async def test_a_websocket_is_refused(toy: Toy) -> None:
    websocket = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http")]
    websocket += [(b":path", b"/"), (b":authority", b"localhost"), (b"sec-websocket-version", b"13")]
    answer = (await send(toy, [RawCall("websocket", websocket, None)]))["websocket"]
    assert answer.headers[":status"] == "403" or answer.grpc_status == INTERNAL


async def test_every_odd_call_is_answered_or_reset(toy: Toy) -> None:
    answers = await send(toy, odd_calls(PATH, SERVICE))
    for name, answer in answers.items():
        is_refused = answer.headers.get(":status", "200") != "200"  # before it is a call of gRPC
        assert answer.grpc_status is not None or is_refused or answer.is_reset or answer.is_closed, name
        assert answer.grpc_status not in (0, UNKNOWN), (name, answer)


@pytest.mark.parametrize("path", [HEALTH + b"Check", HEALTH + b"List", HEALTH + b"Watch", REFLECTION])
async def test_public_services_refuse_a_message_that_they_cannot_decode(toy: Toy, path: bytes) -> None:
    calls = [call for call in odd_bodies(path) if call.name == "no protobuf"]
    assert (await send(toy, calls))["no protobuf"].grpc_status == INVALID_ARGUMENT


@pytest.mark.parametrize("path", [HEALTH + b"Check", HEALTH + b"List"])
async def test_health_checks_answer_odd_messages(toy: Toy, path: bytes) -> None:
    for name, answer in (await send(toy, odd_bodies(path))).items():
        assert answer.grpc_status not in (None, UNKNOWN), (name, answer)


async def test_a_call_without_a_complete_message_is_invalid(toy: Toy) -> None:
    answers = await send(toy, odd_bodies(PATH))
    for name in ("no message", "half a prefix", "a message that is cut off"):
        assert answers[name].grpc_status == INVALID_ARGUMENT, name


async def test_headers_without_end_are_refused(toy: Toy) -> None:
    part = encode_headers([(b"x-odd", b"a" * 1000)])
    async with raw_connection(port_of(toy)) as connection:
        stream = connection.take_stream()
        await connection.send(encode_frame(HEADERS, 0, stream, encode_headers(grpc_headers(PATH))))
        for _ in range(2_000):
            await connection.send(encode_frame(CONTINUATION, 0, stream, part))
        answer = await connection.read_answer(stream)
    assert answer.is_closed or answer.is_reset or answer.grpc_status not in (None, 0)


async def test_headers_in_pieces_of_one_byte_are_headers(toy: Toy) -> None:
    block = encode_headers(grpc_headers(PATH))
    async with raw_connection(port_of(toy)) as connection:
        stream = connection.take_stream()
        await connection.send(encode_frame(HEADERS, END_STREAM, stream, block[:1]))
        for index in range(1, len(block)):
            flags = END_HEADERS if index == len(block) - 1 else 0
            await connection.send(encode_frame(CONTINUATION, flags, stream, block[index : index + 1]))
        assert (await connection.read_answer(stream)).grpc_status == INVALID_ARGUMENT


async def test_streams_that_are_reset_at_once_leave_nothing_behind(toy: Toy) -> None:
    async with raw_connection(port_of(toy)) as connection:
        for _ in range(2_000):
            stream = connection.take_stream()
            headers = encode_frame(HEADERS, END_HEADERS, stream, encode_headers(grpc_headers(PATH)))
            await connection.send(headers + encode_frame(RST_STREAM, 0, stream, bytes([0, 0, 0, 8])))


async def test_a_call_may_have_much_metadata(toy: Toy) -> None:
    more = [(b"x-%d" % number, b"1") for number in range(150)]
    answers = await send(toy, [RawCall("much", grpc_headers(PATH, *more))])
    assert answers["much"].grpc_status == UNAUTHENTICATED


async def test_bytes_that_are_no_http2_close_the_connection(toy: Toy) -> None:
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, secrets.token_bytes(1000)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(toy))
        writer.write(junk)
        async with asyncio.timeout(30):
            while await reader.read(1000):
                pass
        writer.close()


@pytest.mark.long
async def test_random_calls_harm_nobody(tmp_path: Path) -> None:
    print(f"seed {(seed := secrets.randbits(32))}")
    choose = random.Random(seed)
    paths = [PATH, HEALTH + b"Check", HEALTH + b"List", b"/" + SERVICE + b"/ListCheques", b"/no/such"]
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        for _ in range(12):
            answers = await send(toy, [random_call(choose, paths) for _ in range(200)])
            assert await serves(toy), answers
        assert toy.process.returncode is None
        assert count_library_lines(toy) < 500
