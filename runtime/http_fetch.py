"""Fetches a document from a URL, for instance keys or a token, within a time for the whole of it.

How it works. urllib bounds single operations of a socket, not the look-up of the name nor the whole. So each
fetch has a daemon thread of its own, which is left behind at the end of its time; its connections are shut
down, which ends the thread. Redirects are not followed, and proxies are for https alone.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from threading import Thread
from typing import Any
from urllib import request
from urllib.error import HTTPError
from urllib.parse import urlsplit

from runtime.process import loopback

TIMEOUT = 5.0
"""Seconds for a whole fetch: name, connection, TLS, headers and body."""
MAX_BYTES = 1_000_000
MAX_ERROR_BYTES = 10_000
THREAD = "HTTP fetch"
"""The name of the threads."""


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine."""
    return loopback.is_loopback(urlsplit(url).hostname or "")


class StatusRefused(OSError):
    """The host answered with a status that is no success, for instance a redirect.

    Args:
        message: the status.
        body: the beginning of the answer's body.
    """

    def __init__(self, message: str, body: bytes) -> None:
        super().__init__(message)
        self.body = body


async def fetch(url: str, form: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the body of a response with the status 200.

    Args:
        url: with http or https.
        form: the body of a POST, as `application/x-www-form-urlencoded`; None for a GET.
        headers: further headers of the request.

    Raises:
        OSError: the host did not answer.
        StatusRefused: it answered with another status.
        TimeoutError: the answer was not complete in time.
        ValueError: the body is too large.
    """
    transfer = _Transfer(request.Request(url, form, dict(headers or {})))  # noqa: S310 - for these two alone
    try:
        async with asyncio.timeout(TIMEOUT):
            return await transfer.run()
    except TimeoutError:
        raise TimeoutError(f"no complete answer within {TIMEOUT:.0f} s") from None
    finally:
        transfer.close()


class _Transfer:
    """One fetch, in a thread."""

    def __init__(self, sent: request.Request) -> None:
        self._sent = sent
        self._closed = False
        self._deadline = time.monotonic() + TIMEOUT
        self._sockets: list[socket.socket] = []
        self._outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def run(self) -> bytes:
        Thread(target=self._work, name=THREAD, daemon=True).start()
        return await self._outcome

    def close(self) -> None:
        """End the thread: what waits for a socket is woken up."""
        self._closed = True
        for each in self._sockets:
            _shut_down(each)

    def _work(self) -> None:
        try:
            body = self._read()
        except Exception as error:
            self._report(self._outcome.set_exception, error)
        else:
            self._report(self._outcome.set_result, body)
        finally:
            for each in self._sockets:
                each.close()

    def _report(self, set_outcome: Callable[[Any], None], value: Any) -> None:
        def report() -> None:
            if not self._outcome.done():
                set_outcome(value)

        if not self._closed:
            try:
                self._outcome.get_loop().call_soon_threadsafe(report)
            except RuntimeError:  # the loop has ended
                return

    def _read(self) -> bytes:
        opener = request.OpenerDirector()
        proxies = request.getproxies() if self._sent.type == "https" else {}
        for handler in (
            request.ProxyHandler(proxies),
            request.HTTPDefaultErrorHandler(),
            request.HTTPErrorProcessor(),
            _HttpHandler(self._connect),
            _HttpsHandler(self._connect),
        ):
            opener.add_handler(handler)
        try:
            with opener.open(self._sent, timeout=TIMEOUT) as response:
                body: bytes = response.read(MAX_BYTES + 1)
        except HTTPError as error:
            with error:
                raise StatusRefused(str(error), error.read(MAX_ERROR_BYTES)) from error
        if len(body) > MAX_BYTES:
            raise ValueError(f"the answer has more than {MAX_BYTES} bytes")
        return body

    def _connect(self, address: tuple[str, int], _timeout: object, source: Any = None) -> socket.socket:
        """Connect within the time that is left, and keep a handle to shut the connection down."""
        left = self._deadline - time.monotonic()
        if self._closed or left <= 0:
            raise TimeoutError("closed")
        connected = socket.create_connection(address, left, source)
        connected.settimeout(TIMEOUT)
        self._sockets.append(connected.dup())  # TLS takes the first descriptor over
        if self._closed:
            _shut_down(connected)
        return connected


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended
        return


def _open_connection(kind: type[HTTPConnection], connect: Any, host: str, **options: Any) -> HTTPConnection:
    connection: Any = kind(host, **options)
    connection._create_connection = connect  # the only place where http.client lets a connection be made
    return connection  # type: ignore[no-any-return]


class _HttpHandler(request.HTTPHandler):
    def __init__(self, connect: Any) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: Any) -> Any:
        kind: Any = partial(_open_connection, HTTPConnection, self._connect)
        return self.do_open(kind, req)


class _HttpsHandler(request.HTTPSHandler):
    def __init__(self, connect: Any) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: Any) -> Any:
        kind: Any = partial(_open_connection, HTTPSConnection, self._connect)
        return self.do_open(kind, req, context=ssl.create_default_context())
