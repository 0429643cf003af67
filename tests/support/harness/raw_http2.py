"""An HTTP/2 client that sends any bytes: frames and headers that no gRPC client would send."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from hpack import Decoder

Header = tuple[bytes, bytes]

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TIMEOUT = 5.0
"""Seconds to wait for an answer; a server that needs them is stuck."""


@dataclass
class Answer:
    """How a server ended a stream: with headers, by a reset, or by closing the connection."""

    headers: dict[str, str] = field(default_factory=dict)
    is_reset: bool = False
    is_closed: bool = False

    @property
    def grpc_status(self) -> int | None:
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None


def encode_headers(headers: Sequence[Header]) -> bytes:
    """Return a header block of literals, which any bytes can be."""
    return b"".join(b"\0" + _encode_string(name) + _encode_string(value) for name, value in headers)


def _encode_string(text: bytes) -> bytes:
    size, encoded = len(text), bytearray()
    if size < 127:
        return bytes([size]) + text
    encoded.append(127)
    size -= 127
    while size >= 128:
        encoded.append(size % 128 + 128)
        size //= 128
    return bytes(encoded) + bytes([size]) + text


def encode_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def encode_message(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """Return a gRPC message with its prefix, which may lie."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


def grpc_headers(path: bytes, *more: Header, without: str = "") -> list[Header]:
    """Return the headers of a gRPC call.

    Args:
        path: the value of `:path`.
        more: headers at the end.
        without: the name of a header to leave out.
    """
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    return [header for header in headers if header[0] != without.encode()] + list(more)


class RawConnection:
    """A connection on which a test writes frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._next_stream = 1

    def take_stream(self) -> int:
        """Return the number of the next stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        return stream

    async def send(self, data: bytes) -> None:
        """Write bytes; a server that has closed the connection ignores them."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def call(self, headers: Sequence[Header], message: bytes | None = b"") -> Answer:
        """Send a call and return how the server ends it.

        Args:
            headers: all of them, as from `grpc_headers`.
            message: the serialised request, with its prefix if it is not empty; None for no DATA frame.
        """
        stream = self.take_stream()
        flags = END_HEADERS | (END_STREAM if message is None else 0)
        data = encode_frame(HEADERS, flags, stream, encode_headers(headers))
        if message is not None:
            data += encode_frame(DATA, END_STREAM, stream, message or encode_message(b""))
        await self.send(data)
        return await self.read_answer(stream)

    async def read_answer(self, stream: int) -> Answer:
        """Read frames until the server has ended a stream or the connection."""
        answer = Answer()
        async with asyncio.timeout(TIMEOUT):
            while True:
                frame = await self._read_frame()
                if frame is None:
                    answer.is_closed = True
                    return answer
                kind, flags, number, payload = frame
                if kind == HEADERS:
                    decoded = self._decoder.decode(payload, raw=True)
                    if number == stream:
                        answer.headers |= {name.decode(): value.decode("latin1") for name, value in decoded}
                if number == stream and kind == RST_STREAM:
                    answer.is_reset = True
                    return answer
                if number == stream and flags & END_STREAM and kind in (HEADERS, DATA):
                    return answer

    async def _read_frame(self) -> tuple[int, int, int, bytes] | None:
        """Return kind, flags, stream and payload of the next frame; None if the connection is closed."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        if kind == SETTINGS and not flags & 1:
            await self.send(encode_frame(SETTINGS, 1, 0))
        if kind == PING and not flags & 1:
            await self.send(encode_frame(PING, 1, 0, payload))
        return kind, flags, stream & 0x7FFFFFFF, payload


@asynccontextmanager
async def raw_connection(port: int) -> AsyncIterator[RawConnection]:
    """Connect to a server of this machine and send the preface."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        connection = RawConnection(reader, writer)
        await connection.send(PREFACE + encode_frame(SETTINGS, 0, 0))
        yield connection
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
