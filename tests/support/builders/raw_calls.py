"""Calls that no gRPC client would send, as raw frames: each must be answered, and must harm nobody else."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.support.harness.raw_http2 import Header, encode_message, grpc_headers

ODD_BYTES = (
    b"\xff",
    b"\x80abc",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"\0",
    b"\r\nx: y",
    b"\x1b[2J",
    b"\x7f",
    b"a b",
    b"",
)
TIMEOUTS = (b"0n", b"-1S", b"1X", b"S", b"1.5S", b"99999999H", b"999999999999H", b"1" * 100 + b"S", b"+1S")
ENCODINGS = (b"gzip", b"deflate", b"identity", b"snappy", b"gzip,gzip")
REPLACED = (b":method", b":scheme", b":authority", b"content-type", b"te")
REQUIRED = (":method", ":scheme", ":path", ":authority", "te", "content-type")


@dataclass(frozen=True)
class RawCall:
    """The headers of a call and the bytes of its body; None for a call that ends with its headers."""

    name: str
    headers: Sequence[Header]
    body: bytes | None = b""


def odd_calls(path: bytes, service: bytes) -> Iterator[RawCall]:
    """Yield one call of each kind of oddity.

    Args:
        path: of an existing method.
        service: its service's full name.
    """
    for odd in ODD_BYTES:
        for odd_path in (b"/" + odd, b"/" + service + b"/" + odd, path + odd, odd):
            yield RawCall(f"path {odd_path!r}", grpc_headers(odd_path))
        yield RawCall(f"value {odd!r}", grpc_headers(path, (b"x-odd", odd)))
        yield RawCall(f"name {odd!r}", grpc_headers(path, (b"x" + odd, b"1")))
        yield RawCall(f"binary {odd!r}", grpc_headers(path, (b"x-odd-bin", odd)))
        for known in (b"authorization", b"user-agent", b"grpc-timeout", b"grpc-encoding", b"traceparent"):
            yield RawCall(f"{known.decode()} {odd!r}", grpc_headers(path, (known, odd)))
        for pseudo in REPLACED:
            yield RawCall(f"{pseudo.decode()} {odd!r}", replace_header(path, pseudo, odd))
    for name in REQUIRED:
        yield RawCall(f"without {name}", grpc_headers(path, without=name))
        yield RawCall(f"twice {name}", [*grpc_headers(path), (name.encode(), b"/twice")])
    for timeout in TIMEOUTS:
        yield RawCall(f"timeout {timeout!r}", grpc_headers(path, (b"grpc-timeout", timeout)))
    yield from odd_bodies(path)


def replace_header(path: bytes, name: bytes, value: bytes) -> list[Header]:
    """Return the headers of a call, one of them with another value."""
    return [(each, value if each == name else usual) for each, usual in grpc_headers(path)]


def odd_bodies(path: bytes) -> Iterator[RawCall]:
    """Yield calls whose messages are missing, cut off, junk, or of another length than they say."""
    for encoding in ENCODINGS:
        headers = grpc_headers(path, (b"grpc-encoding", encoding))
        yield RawCall(f"encoding {encoding!r}", headers, encode_message(b"junk", compressed=1))
    for name, body in {
        "no message": None,
        "half a prefix": b"\0\0",
        "a message that is cut off": encode_message(b"junk", length=100),
        "a message of 4 GB": encode_message(b"junk", length=2**32 - 1),
        "a compressed message without an encoding": encode_message(b"junk", compressed=1),
        "a flag that does not exist": encode_message(b"junk", compressed=255),
        "two messages": encode_message(b"") * 2,
        "bytes after the message": encode_message(b"") + b"\0",
        "no protobuf": encode_message(b"\xff\xff\xff"),
    }.items():
        yield RawCall(name, grpc_headers(path), body)


def random_call(choose: random.Random, paths: Sequence[bytes]) -> RawCall:
    """Return a call with up to three random faults."""
    headers, body = grpc_headers(choose.choice(paths)), encode_message(choose.randbytes(choose.randrange(50)))
    for _ in range(choose.randint(1, 3)):
        index, odd = choose.randrange(len(headers)), choose.randbytes(choose.randrange(12))
        name, value = headers[index]
        match choose.randrange(6):
            case 0:
                cut = choose.randrange(len(value) + 1)
                headers[index] = (name, value[:cut] + odd + value[cut:])
            case 1:
                headers[index] = (name + odd, value)
            case 2:
                headers.insert(index, (odd, odd))
            case 3 if len(headers) > 1:
                del headers[index]
            case 4:
                known = choose.choice((b"authorization", b"grpc-timeout", b"grpc-encoding", b"te", b"x-bin"))
                headers.append((known, odd))
            case _:
                body = choose.randbytes(choose.randrange(12)) + body[choose.randrange(6) :]
    return RawCall("random", headers, choose.choice((body, body, None)))
