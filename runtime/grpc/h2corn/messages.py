"""The messages of calls in bodies: each follows five bytes, a flag of its compression and its length."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from runtime.grpc.listener import MAX_RECEIVED_BYTES
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.validation import too_large_error

Receive = Callable[[], Awaitable[dict[str, Any]]]
"""Returns the next event of a call: a part of its body, or the end of its connection (ASGI)."""

_PREFIX = 5


class ClientGone(Exception):
    """The client has left before its call was complete."""


async def read_message(receive: Receive) -> bytes:
    """Return the only message of a call.

    Raises:
        RpcError: `REQUEST_INVALID` or `REQUEST_TOO_LARGE`.
        ClientGone: the client has left.
    """
    body, more = await _receive_part(receive)
    if more:
        body = await _read_rest(body, receive)
    if len(body) < _PREFIX or len(body) != _find_end(body):
        raise RpcError("REQUEST_INVALID", "the call has no complete message")
    if body[0]:
        raise RpcError("REQUEST_INVALID", "messages must not be compressed")
    return body[_PREFIX:]


async def _read_rest(body: bytes, receive: Receive) -> bytes:
    parts, size = [body], len(body)
    more = True
    while more:
        if size > MAX_RECEIVED_BYTES + _PREFIX:
            raise too_large_error(size, MAX_RECEIVED_BYTES)
        body, more = await _receive_part(receive)
        parts.append(body)
        size += len(body)
    return b"".join(parts)


async def read_messages(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the messages of a call with a stream of them.

    Raises:
        RpcError: `REQUEST_TOO_LARGE`.
        ClientGone: the client has left.
    """
    waiting, more = b"", True
    while more:
        body, more = await _receive_part(receive)
        waiting += body
        while len(waiting) >= _PREFIX and len(waiting) >= (end := _find_end(waiting)):
            message, waiting = waiting[_PREFIX:end], waiting[end:]
            yield message
        if len(waiting) > MAX_RECEIVED_BYTES:
            raise too_large_error(len(waiting), MAX_RECEIVED_BYTES)


async def _receive_part(receive: Receive) -> tuple[bytes, bool]:
    """Return the next part of a body, and whether another one may follow."""
    event = await receive()
    if event["type"] != "http.request":
        raise ClientGone
    return event.get("body", b""), event.get("more_body", False)


def _find_end(body: bytes) -> int:
    """Return the end of a message at the start of a body, as its length says."""
    return _PREFIX + int.from_bytes(body[1:_PREFIX], "big")


def frame(message: bytes) -> bytes:
    """Return a message as a part of a body."""
    return b"\0" + len(message).to_bytes(4, "big") + message
