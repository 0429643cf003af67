"""Fetches a JSON Web Key Set from a URL, within a time for the whole of it.

How it works. urllib bounds single operations of a socket, not the look-up of the name nor the whole. So each
fetch has a daemon thread of its own, which is left behind at the end of its time; its connections are shut
down, which ends the thread. Redirects are not followed, and proxies are for https alone.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from threading import Thread
from typing import Any
from urllib import request
from urllib.parse import urlsplit

from runtime.process import loopback

TIMEOUT = 5.0
"""Seconds for a whole fetch: name, connection, TLS, headers and body."""
MAX_BYTES = 1_000_000


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine."""
    return loopback.is_loopback(urlsplit(url).hostname or "")


async def fetch(url: str) -> bytes:
    """Return the body of a response with the status 200.

    Raises:
        OSError: the host did not answer, or with another status, for instance a redirect.
        TimeoutError: the answer was not complete in time.
        ValueError: the body is too large.
    """
    transfer = _Transfer(url)
    try:
        async with asyncio.timeout(TIMEOUT):
            return await transfer.run()
    except TimeoutError:
        raise TimeoutError(f"no complete answer within {TIMEOUT:.0f} s") from None
    finally:
        transfer.close()


class _Transfer:
    """One fetch, in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._closed = False
        self._deadline = time.monotonic() + TIMEOUT
        self._sockets: list[socket.socket] = []
        self._outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def run(self) -> bytes:
        Thread(target=self._work, name="JWKS", daemon=True).start()
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
        proxies = request.getproxies() if self._url.startswith("https://") else {}
        for handler in (
            request.ProxyHandler(proxies),
            request.HTTPDefaultErrorHandler(),
            request.HTTPErrorProcessor(),
            _HttpHandler(self._connect),
            _HttpsHandler(self._connect),
        ):
            opener.add_handler(handler)
        with opener.open(self._url, timeout=TIMEOUT) as response:
            body: bytes = response.read(MAX_BYTES + 1)
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
