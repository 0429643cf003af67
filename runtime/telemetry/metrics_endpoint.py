"""Answers `GET /metrics` at an address of its own, in a thread beside the event loop.

How it works. The thread has an event loop of its own, so that scrapes are answered while the process's loop
stands still, and a client that is slow delays neither. A connection carries one request. It is closed after
DEADLINE seconds, whatever its client does, and at once if MAX_CONNECTIONS are open. Scrapes within KEEP
seconds get the same text, so that many of them cost as much as one.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from threading import Thread
from time import monotonic

from runtime.process import logs
from runtime.telemetry.prometheus_text import OPENMETRICS_TYPE, TEXT_TYPE, render_openmetrics, render_text
from runtime.telemetry.snapshots import MetricSnapshot

PATH = "/metrics"
DEADLINE = 5.0
"""Seconds of a connection, from its beginning."""
MAX_CONNECTIONS = 16
MAX_REQUEST = 16 * 1024
"""Bytes of a request."""
KEEP = 0.2
"""Seconds for which a text is kept."""

log = logs.get_logger(__name__)

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}

Collect = Callable[[], Iterable[MetricSnapshot]]


class MetricsEndpoint:
    """The endpoint, which answers from its creation until `stop`.

    Args:
        listener: a bound socket.
        collect: returns the metrics, in the endpoint's thread.
        resource: the attributes of the process.
    """

    def __init__(self, listener: socket.socket, collect: Collect, resource: Mapping[str, object]) -> None:
        self._collect = collect
        self._resource = resource
        self._texts: dict[str, tuple[float, bytes]] = {}
        self._connections = 0
        self._failures = logs.RepeatedErrors(log, "Metrics not rendered")
        self._loop, self._stopping = asyncio.new_event_loop(), asyncio.Event()
        self._thread = Thread(target=self._run, args=(listener,), name="metrics endpoint", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # it cancels what is left at its end
            runner.run(self._listen(listener))

    async def _listen(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._serve, sock=listener, limit=MAX_REQUEST)
        await self._stopping.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(DEADLINE):
                    await self._answer(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:  # at the end of the process; streams of Python 3.11 would log it
            writer.transport.abort()
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
        status, kind, body = self._respond(_Request(head))
        lines = [
            f"HTTP/1.1 {status} {_REASONS[status]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(["Allow: GET"] if status == 405 else []),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        await reader.read(1)  # the client closes; to close before it has read everything could reset it

    def _respond(self, request: "_Request") -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        if not request.valid:
            return 400, "text/plain", b"not a request of HTTP/1.1\n"
        if request.path.partition("?")[0] != PATH:
            return 404, "text/plain", b"only /metrics is here\n"
        if request.command != "GET":
            return 405, "text/plain", b"only GET\n"
        kind = OPENMETRICS_TYPE if request.accepts_openmetrics else TEXT_TYPE
        try:
            return 200, kind, self._render(kind)
        except Exception as error:
            self._failures.report(error)
            return 500, "text/plain", b"see the log\n"

    def _render(self, kind: str) -> bytes:
        made, text = self._texts.get(kind, (0.0, b""))
        if not text or monotonic() - made > KEEP:
            render = render_openmetrics if kind == OPENMETRICS_TYPE else render_text
            text = render(self._collect(), self._resource)
            self._texts[kind] = monotonic(), text
        return text


class _Request(BaseHTTPRequestHandler):
    """A request, parsed by the standard library."""

    def __init__(self, head: bytes) -> None:
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        self.path = self.command = ""
        self.valid = False
        with suppress(ValueError):
            self.valid = self.parse_request()

    @property
    def accepts_openmetrics(self) -> bool:
        return "application/openmetrics-text" in self.headers.get("accept", "")

    def handle_expect_100(self) -> bool:
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer nothing: the endpoint does."""
