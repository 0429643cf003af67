"""A call that h2corn has taken."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from google.protobuf.message import Message
from grpc import StatusCode

from runtime.grpc.h2corn.headers import ACCEPTED_ENCODING, CONTENT_TYPE, encode_metadata, encode_status
from runtime.grpc.h2corn.messages import frame
from runtime.grpc.metadata import Metadata
from runtime.grpc.method import serialize
from runtime.process import logs

Send = Callable[[dict[str, Any]], Awaitable[None]]
"""Sends an event of a response (ASGI); raises OSError when the client has left."""

DEADLINE_MARGIN = 0.01
"""Seconds before its deadline at which a call ends, or a tenth of its time. Otherwise the client ends it by a
reset, and h2corn closes a connection with many of these (docs/security.md)."""

_OK = (0, "")
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [CONTENT_TYPE, ACCEPTED_ENCODING],
    "trailers": True,
}
_LAST_PART = {"type": "http.response.body", "body": b""}
_SUCCESS = {"type": "http.response.trailers", "headers": encode_status(0, "", ())}

log = logs.get_logger(__name__)


class Aborted(Exception):
    """The handler has ended the call with an error."""


class Call:
    """The context of a call (`runtime.grpc.method.Context`), and its response.

    Must be created in the task of the call.

    Args:
        scope: the facts about the call (ASGI).
        send: sends its response.
    """

    __slots__ = (
        "_deadline",
        "_is_started",
        "_is_writing",
        "_scope",
        "_send",
        "_status",
        "_task",
        "_timer",
        "_trailers",
        "is_late",
    )

    def __init__(self, scope: Mapping[str, Any], send: Send) -> None:
        self._scope = scope
        self._send = send
        self._task = asyncio.current_task()
        self.is_late = False
        """Whether the task was cancelled because of the deadline."""
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._status = _OK
        self._trailers: Metadata = ()
        self._is_started = False
        self._is_writing = False

    def set_timeout(self, seconds: float) -> None:
        """Cancel the task shortly before the deadline in so many seconds."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + seconds
        self._timer = loop.call_at(self._deadline - min(DEADLINE_MARGIN, seconds / 10), self._expire)

    def _expire(self) -> None:
        self.is_late = True
        self.cancel()

    def cancel(self) -> None:
        """End the task of the call."""
        if self._task is not None:
            self._task.cancel()

    def peer(self) -> str:
        host, port = self._scope["client"]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        tls = self._scope["extensions"].get("tls")
        chain = tls["client_cert_chain"] if tls else ()
        return {"x509_pem_cert": (chain[0].encode(),)} if chain else {}

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def trailing_metadata(self) -> Metadata:
        return self._trailers

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._trailers = tuple(trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        with _leaving_client():
            await self._start(initial_metadata)

    async def write(self, message: Message | bytes) -> None:
        part = {"type": "http.response.body", "body": frame(serialize(message)), "more_body": True}
        with _leaving_client():
            if not self._is_started:
                await self._start()
            self._is_writing = True
            await self._send(part)
            self._is_writing = False

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self.set_status(code, details)
        if trailing_metadata:
            self._trailers = tuple(trailing_metadata)
        raise Aborted

    def set_status(self, code: StatusCode, details: str) -> None:
        number: int = code.value[0]
        self._status = number, details

    async def _start(self, metadata: Metadata = ()) -> None:
        self._is_started = True
        event = _START
        if metadata:
            event = _START | {"headers": [CONTENT_TYPE, ACCEPTED_ENCODING, *encode_metadata(metadata)]}
        await self._send(event)

    async def respond(self, message: Message | bytes) -> None:
        """Send the only message of a call, and its status."""
        body = frame(serialize(message))
        if not self._is_started:
            await self._start()
        self._is_writing = True
        await self._send({"type": "http.response.body", "body": body})
        await self._send(self._build_trailers() if self._trailers else _SUCCESS)

    async def finish(self) -> None:
        """Send the status of a call without a message, or after the last one.

        A client that does not read its stream gets none; the end of the task ends its stream.
        """
        if self._is_writing:
            return
        trailers = self._build_trailers()
        if self._is_started:
            await self._send(_LAST_PART)
            await self._send(trailers)
        else:
            headers = [CONTENT_TYPE, ACCEPTED_ENCODING, *trailers["headers"]]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send(_LAST_PART)

    def _build_trailers(self) -> dict[str, Any]:
        try:
            headers = encode_status(*self._status, self._trailers)
        except ValueError:
            log.exception("Status not sent")
            headers = encode_status(StatusCode.INTERNAL.value[0], "internal error", ())
        return {"type": "http.response.trailers", "headers": headers}

    def close(self) -> None:
        """Let go of the deadline."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def _leaving_client() -> Iterator[None]:
    """Cancel a handler whose client has left, as grpc.aio does: no error of the server is to blame."""
    try:
        yield
    except OSError as error:
        raise asyncio.CancelledError from error
