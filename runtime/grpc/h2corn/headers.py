"""The headers and trailers of calls: deadlines, metadata and statuses, as gRPC writes them."""

from base64 import b64decode, b64encode
from collections.abc import Iterable

from runtime.grpc.metadata import Metadata

Headers = Iterable[tuple[bytes, bytes]]

CONTENT_TYPE = (b"content-type", b"application/grpc")
ACCEPTED_ENCODING = (b"grpc-accept-encoding", b"identity")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_DIGITS = 8
_RESERVED = {b"content-type", b"te", b"host"}


class InvalidHeaders(Exception):
    """The headers are not those of a call."""


def is_grpc(headers: Headers) -> bool:
    return any(
        name == b"content-type" and value.lower().startswith(b"application/grpc") for name, value in headers
    )


def read_timeout(value: bytes) -> float:
    """Return a header `grpc-timeout`, for instance `100m`, in seconds.

    Raises:
        InvalidHeaders: it is none.
    """
    digits, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise InvalidHeaders("grpc-timeout is no time")
    return int(digits) * unit


def read_headers(headers: Headers) -> tuple[float | None, Metadata]:
    """Return the seconds until the deadline of a call, None if it has none, and its metadata.

    Raises:
        InvalidHeaders: the timeout or a binary value cannot be read.
    """
    timeout = None
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name == b"grpc-timeout":
            timeout = read_timeout(value)
        elif name.endswith(b"-bin"):
            key = name.decode("latin-1")
            metadata.extend((key, _decode_binary(key, each)) for each in value.split(b","))
        elif name not in _RESERVED and not name.startswith(b"grpc-"):
            metadata.append((name.decode("latin-1"), value.decode("latin-1")))
    return timeout, metadata


def _decode_binary(key: str, value: bytes) -> bytes:
    try:
        return b64decode(value.strip() + b"=" * (-len(value.strip()) % 4), validate=True)
    except ValueError:
        raise InvalidHeaders(f"the metadata {key} is not Base64") from None


def encode_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return metadata as headers.

    Raises:
        ValueError: a text cannot be sent.
    """
    return [(key.encode("ascii"), _encode_value(key, value)) for key, value in metadata]


def _encode_value(key: str, value: str | bytes) -> bytes:
    if key.endswith("-bin"):
        return b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")
    text = value if isinstance(value, str) else value.decode("ascii")
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"the metadata {key} is not printable ASCII")
    return text.encode()


def encode_status(code: int, text: str, trailers: Metadata) -> list[tuple[bytes, bytes]]:
    """Return the trailers that end a call.

    Raises:
        ValueError: the metadata cannot be sent.
    """
    status = [(b"grpc-status", b"%d" % code), *encode_metadata(trailers)]
    if text:
        status.append((b"grpc-message", _quote(text)))
    return status


def _quote(text: str) -> bytes:
    """Return a text with every character but printable ASCII, and `%`, as `%XX` of its UTF-8."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text.encode()
    quoted = [
        bytes((byte,)) if 32 <= byte < 127 and byte != 37 else b"%%%02X" % byte
        for byte in text.encode(errors="replace")
    ]
    return b"".join(quoted)
