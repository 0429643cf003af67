"""The messages of calls in bodies: each follows five bytes, a flag of its compression and its length."""

from collections.abc import Awaitable, Callable
from typing import Any

from runtime.grpc.listener import MAX_RECEIVED_BYTES
from runtime.grpc.rpc_error import RpcError

Receive = Callable[[], Awaitable[dict[str, Any]]]
"""Returns the next event of a call: a part of its body, or the end of its connection (ASGI)."""

_PREFIX = 5
_NO_MESSAGE = "the call has no complete message"


class ClientGone(Exception):
    """The client has left before its call was complete."""


async def read_body(receive: Receive) -> bytes:
    """Return the next part of a body, and so wait until there is one; empty at the end.

    Raises:
        ClientGone: the client has left.
    """
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientGone
        body: bytes = event.get("body", b"")
        if body or not event.get("more_body", False):
            return body


async def read_message(receive: Receive) -> bytes:
    """Return the only message of a call.

    Raises:
        RpcError: `REQUEST_INVALID` or `REQUEST_TOO_LARGE`.
        ClientGone: the client has left.
    """
    event = await receive()
    if event["type"] != "http.request":
        raise ClientGone
    body: bytes = event.get("body", b"")
    if event.get("more_body", False):
        body = await _read_rest(body, receive)
    size = len(body) - _PREFIX
    if size < 0 or size != int.from_bytes(body[1:_PREFIX], "big"):
        raise RpcError("REQUEST_INVALID", _NO_MESSAGE)
    if body[0]:
        raise RpcError("REQUEST_INVALID", "messages must not be compressed")
    return body[_PREFIX:]


async def _read_rest(body: bytes, receive: Receive) -> bytes:
    parts, size = [body], len(body)
    more = True
    while more:
        if size > MAX_RECEIVED_BYTES + _PREFIX:
            facts = {"bytes": str(size), "most": str(MAX_RECEIVED_BYTES)}
            raise RpcError("REQUEST_TOO_LARGE", f"more than {MAX_RECEIVED_BYTES} bytes", facts)
        event = await receive()
        if event["type"] != "http.request":
            raise ClientGone
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        more = event.get("more_body", False)
    return b"".join(parts)


def frame(message: bytes) -> bytes:
    """Return a message as a part of a body."""
    return b"\0" + len(message).to_bytes(4, "big") + message
