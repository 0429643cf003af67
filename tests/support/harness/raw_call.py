"""A unary gRPC call with any bytes in its metadata, which gRPC's own clients refuse to send.

The frames are written by hand, with headers as HPACK literals. Of the answer only its end is read.
"""

import asyncio
import struct
from collections.abc import Iterable

DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
Header = tuple[bytes, bytes]


async def call(address: str, path: str, request: bytes, metadata: Iterable[Header]) -> None:
    """Call a method, and return once it is answered.

    Raises:
        ConnectionError: the server closed the connection or the stream instead.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", address.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *metadata,
    )
    message = b"\0" + struct.pack(">I", len(request)) + request
    writer.write(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _encode_frame(SETTINGS, 0, 0, b"")
        + _encode_frame(HEADERS, END_HEADERS, 1, b"".join(map(_encode_literal, headers)))
        + _encode_frame(DATA, END_STREAM, 1, message)
    )
    try:
        async with asyncio.timeout(20):
            await _read_to_end(reader, writer)
    finally:
        writer.close()


async def _read_to_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server closed the connection") from error
        kind, flags = head[3], head[4]
        if kind == SETTINGS and not flags & ACK:
            writer.write(_encode_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            writer.write(_encode_frame(PING, ACK, 0, payload))
        elif kind in (RESET, GO_AWAY):
            raise ConnectionError(f"frame {kind}: {payload!r}")
        elif kind in (HEADERS, DATA) and flags & END_STREAM:
            return


def _encode_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _encode_literal(header: Header) -> bytes:
    """Return a header as a literal that is not indexed, without Huffman coding."""
    return b"\0" + b"".join(_encode_length(len(part)) + part for part in header)


def _encode_length(length: int) -> bytes:
    if length < 127:
        return bytes((length,))
    encoded, rest = [127], length - 127
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes((*encoded, rest))
