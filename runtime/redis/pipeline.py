"""Commands to Redis on one connection that is kept.

How it works. A call appends its command to an output buffer and a future to a queue. An AdaptiveBatcher
flushes the buffer, so that the commands of one burst leave in one write. Redis replies in the order of the
commands: each reply resolves the future at the head of the queue, and a cancelled request keeps its entry
there. Several commands of one call share an entry, which collects their replies. A background task connects,
and reconnects with backoff. It replaces a connection that breaks, or whose oldest command gets no reply
within the timeout. A broken connection resolves its queued futures with a ConnectionError as their result.

A pool costs ten times as much: each command checks out a connection and waits for a round trip of its own.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

import hiredis

from runtime.backoff import Backoff
from runtime.batching import AdaptiveBatcher
from runtime.process import logs
from runtime.redis.address import RedisAddress
from runtime.telemetry.metrics import CONNECTIONS_LOST

INITIAL_PAUSE, MAX_PAUSE = 0.01, 1.0
"""Seconds between attempts to connect."""
PROBE = ("DBSIZE",)
"""A read that needs no key. PING is no probe: a Redis whose disk is full refuses it, and serves reads."""

log = logs.get_logger(__name__)

Command = tuple[str | bytes | int, ...]


class RedisPipeline:
    """Keeps a connection to Redis.

    Entering the context waits for the first attempt to connect, whether or not it succeeds; later attempts
    run in the background.

    Args:
        address: of Redis.
        timeout: seconds without a reply to the oldest command after which the connection is closed.
        max_wait: seconds after which a command is sent even while more commands arrive; 0 sends at once what
            one iteration of the event loop has brought.
    """

    def __init__(self, address: RedisAddress, timeout: float, max_wait: float) -> None:
        self._address = address
        self._timeout = timeout
        self._max_wait = max_wait
        self._connection: PipelinedConnection | None = None
        self._attempted = asyncio.Event()
        self.connections = 0
        """Changes with every connection and loss of one, after which Redis may have other data."""

    async def __aenter__(self) -> Self:
        self._connector = asyncio.create_task(self._keep_connected())
        await self._attempted.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connector.cancel()
        await asyncio.wait((self._connector,))

    def get_connection(self) -> "PipelinedConnection | None":
        """Return the connection; None while there is none."""
        connection = self._connection
        return None if connection is None or connection.lost.done() else connection

    async def _keep_connected(self) -> None:
        backoff = Backoff(INITIAL_PAUSE, MAX_PAUSE)
        failures = logs.RepeatedErrors(log, "Redis unreachable", address=str(self._address))
        while True:
            connection = PipelinedConnection(self._timeout, self._max_wait)
            try:
                await self._connect(connection)
                log.info("Redis connected", address=str(self._address))
                backoff.reset()
                failures.reset()
                await self._serve_with(connection)
                CONNECTIONS_LOST.count("Redis")
                log.warning("Redis connection lost", address=str(self._address))
            except Exception as error:  # any error may be transient, so the loop always tries again
                failures.report(error)
            finally:
                connection.close()
            self._attempted.set()
            await asyncio.sleep(backoff.next_pause())

    async def _serve_with(self, connection: "PipelinedConnection") -> None:
        """Let calls use a connection until it breaks."""
        self._connection = connection
        self.connections += 1
        self._attempted.set()
        try:
            await connection.lost
        finally:
            self._connection = None
            self.connections += 1

    async def _connect(self, connection: "PipelinedConnection") -> None:
        async with asyncio.timeout(self._timeout):
            await self._address.connect(lambda: connection)
            for command in (*self._address.handshake, PROBE):
                if isinstance(reply := await connection.send(command), Exception):
                    raise reply


class _Replies:
    """The replies to several commands of one call."""

    __slots__ = ("count", "future", "received")

    def __init__(self, future: asyncio.Future[Any], count: int) -> None:
        self.future = future
        self.count = count
        self.received: list[Any] = []


class PipelinedConnection(asyncio.Protocol):
    """One connection.

    When it breaks, pending futures get the exception as their result: a caller of several commands may await
    only the last future, and asyncio would report an exception in any of the others as never retrieved.
    """

    def __init__(self, timeout: float, max_wait: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._parser = hiredis.Reader()
        self._output: list[bytes] = []
        self._batcher = AdaptiveBatcher(lambda: len(self._output), self._flush, max_wait)
        self._pending: deque[asyncio.Future[Any] | _Replies] = deque()
        self._reply_count = 0
        self._shared: dict[Command, asyncio.Future[Any]] = {}
        """Replies to commands in the output that other calls may use."""
        self._transport: Any = None
        self._failure = ConnectionError()
        """Why the connection is lost."""
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._check_progress(None)

    def send(self, command: Command) -> asyncio.Future[Any]:
        reply = self._loop.create_future()
        if self.lost.done():
            reply.set_result(self._failure)
            return reply
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a 1-tuple
        self._pending.append(reply)  # not before: a command that cannot be packed gets no reply
        if not self._output:
            self._batcher.begin()
        self._output.append(packed)
        return reply

    def send_all(self, commands: Sequence[Command]) -> asyncio.Future[Any]:
        """Send one or more commands; the result is the list of their replies, in this order."""
        replies = self._loop.create_future()
        if self.lost.done():
            replies.set_result(self._failure)
            return replies
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        self._pending.append(_Replies(replies, len(packed)))
        if not self._output:
            self._batcher.begin()
        self._output += packed
        return replies

    def share(self, command: Command) -> asyncio.Future[Any]:
        """Return the reply to a command that precedes all later ones, and is in the output but once."""
        reply = self._shared.get(command)
        if reply is None:
            reply = self._shared[command] = self.send(command)
        return reply

    def _flush(self) -> None:
        self._shared.clear()
        if self.lost.done():
            return
        self._transport.write(b"".join(self._output))
        self._output.clear()

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            if not self._pending:  # a refusal of the connection, for instance of one too many
                self._fail(ConnectionError(str(reply)))
                self.close()
                return
            self._reply_count += 1
            self._resolve_head(reply)

    def _resolve_head(self, reply: Any) -> None:
        head = self._pending[0]
        if isinstance(head, _Replies):
            head.received.append(reply)
            if len(head.received) < head.count:
                return
            reply, head = head.received, head.future
        self._pending.popleft()
        if not head.done():  # it is done if its request was cancelled
            head.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(ConnectionError(str(error or "closed by Redis")))

    def _fail(self, failure: ConnectionError) -> None:
        if self.lost.done():
            return
        self._failure = failure
        self.lost.set_result(None)
        for entry in self._pending:
            future = entry.future if isinstance(entry, _Replies) else entry
            if not future.done():
                future.set_result(failure)
        self._pending.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _check_progress(self, previous_count: int | None) -> None:
        """Close the connection if the oldest command is the same as half a timeout ago.

        Args:
            previous_count: replies up to then; None if none was missing.
        """
        if self.lost.done():
            return
        if self._pending and previous_count == self._reply_count:
            self.close()
            return
        count = self._reply_count if self._pending else None
        self._loop.call_later(self._timeout / 2, self._check_progress, count)
