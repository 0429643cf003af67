"""Reads from Redis for all requests of a process, pipelined on one connection.

How it works. A call appends its command to an output buffer and a future to a queue. An AdaptiveBatcher
flushes the buffer, so that the commands of one burst leave in one write. Redis replies in the order of the
commands: each reply resolves the future at the head of the queue, and a cancelled request keeps its entry
there. A background task connects, and reconnects with backoff. It replaces a connection that breaks, or
whose oldest command gets no reply within the timeout. A broken connection resolves its queued futures with
a ConnectionError as their result, which becomes READ_MODEL_UNAVAILABLE.

A pool costs ten times as much: each read checks out a connection and waits for a round trip of its own.
"""

import asyncio
from collections import deque
from typing import Any, Self

import hiredis

from query_server.redis_address import RedisAddress
from runtime.backoff import Backoff
from runtime.batching import AdaptiveBatcher
from runtime.grpc.clock_check import check_clock
from runtime.grpc.health import NotReady
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

TIMEOUT = 2.0
"""Seconds without a reply to the oldest command after which the connection is closed."""
MAX_WAIT = 0.005
"""Seconds after which a command is sent even while more commands arrive."""
INITIAL_PAUSE, MAX_PAUSE = 0.01, 1.0
"""Seconds between attempts to connect."""
ERRORS_OF_CALLERS = ("ERR", "NOSCRIPT", "EXECABORT", "CROSSSLOT")
"""Prefixes of the errors of a wrong command. All others tell the state of Redis, for example LOADING."""
PROBE = ("DBSIZE",)
"""A read that needs no key. PING is no probe: a Redis whose disk is full refuses it, and serves reads."""

log = logs.get_logger(__name__)
_unreadable_data = logs.LimitedErrors(log, "Stored data cannot be read")

Command = tuple[str | bytes | int, ...]


class RedisClient:
    """Sends commands and returns their replies: bytes, int, None, or a list of them.

    Entering the context waits for the first attempt to connect, whether or not it succeeds; later attempts
    run in the background. Every call raises

        RpcError: `READ_MODEL_UNAVAILABLE`; Redis is unreachable, or did not reply within the timeout.
            `VIEW_UNREADABLE`; the key has another type than the command expects.
        hiredis.ReplyError: Redis rejected the command, which is a bug of the caller.

    Args:
        address: of Redis.
        timeout: seconds, as TIMEOUT.
    """

    def __init__(self, address: RedisAddress, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._connection: _Connection | None = None
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

    async def call(self, *command: str | bytes | int) -> Any:
        """Return the reply to one command."""
        return _unwrap(await self._send(command), command)

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Return the replies to several commands, which Redis executes in this order."""
        replies = [self._send(command) for command in commands]
        if replies:
            await replies[-1]  # replies come in order, so the others are resolved by then
        results = [reply.result() for reply in replies]
        for result, command in zip(results, commands, strict=True):
            if isinstance(result, Exception):
                _unwrap(result, command)
        return results

    async def call_behind(self, first: Command, command: Command) -> tuple[Any, Any]:
        """Return the replies to two commands; the first is sent once for all calls that leave together."""
        connection = self._require_connection()
        shared, reply = connection.share(first), connection.send(command)
        result = await reply  # replies come in order, so the shared one is there
        return _unwrap(shared.result(), first), _unwrap(result, command)

    async def read_time(self) -> float:
        """Return Redis's time, in seconds since 1970."""
        seconds, microseconds = await self.call("TIME")
        return int(seconds) + int(microseconds) / 1e6

    async def serves_reads(self) -> bool:
        """Return whether Redis serves reads."""
        try:
            await self.call(*PROBE)
        except RpcError:
            return False
        return True

    async def is_ready(self) -> bool:
        """Return whether Redis serves reads.

        Raises:
            NotReady: Redis serves no reads, or this machine's clock is away from Redis's.
            RpcError: Redis does not reply.
        """
        await check_clock("Redis", self.read_time)
        if not await self.serves_reads():
            raise NotReady("Redis serves no reads")
        return True

    def _send(self, command: Command) -> asyncio.Future[Any]:
        return self._require_connection().send(command)

    def _require_connection(self) -> "_Connection":
        if self._connection is None or self._connection.lost.done():
            raise _unavailable()
        return self._connection

    async def _keep_connected(self) -> None:
        backoff = Backoff(INITIAL_PAUSE, MAX_PAUSE)
        failures = logs.RepeatedErrors(log, "Redis unreachable", address=str(self._address))
        while True:
            connection = _Connection(self._timeout)
            try:
                await self._connect(connection)
                log.info("Redis connected", address=str(self._address))
                backoff.reset()
                failures.reset()
                await self._serve_with(connection)
                log.warning("Redis connection lost", address=str(self._address))
            except Exception as error:  # any error may be transient, so the loop always tries again
                failures.report(error.__cause__ or error)
            finally:
                connection.close()
            self._attempted.set()
            await asyncio.sleep(backoff.next_pause())

    async def _serve_with(self, connection: "_Connection") -> None:
        """Let calls use a connection until it breaks."""
        self._connection = connection
        self.connections += 1
        self._attempted.set()
        try:
            await connection.lost
        finally:
            self._connection = None
            self.connections += 1

    async def _connect(self, connection: "_Connection") -> None:
        async with asyncio.timeout(self._timeout):
            await self._address.connect(lambda: connection)
            for command in (*self._address.handshake, PROBE):
                _unwrap(await connection.send(command), command)


class _Connection(asyncio.Protocol):
    """One connection.

    When it breaks, pending futures get the exception as their result: `pipeline` awaits only its last future,
    and asyncio would report an exception in any of the others as never retrieved.
    """

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._parser = hiredis.Reader()
        self._output: list[bytes] = []
        self._batcher = AdaptiveBatcher(lambda: len(self._output), self._flush, MAX_WAIT)
        self._pending: deque[asyncio.Future[Any]] = deque()
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
        self._pending.append(reply)
        if not self._output:
            self._batcher.begin()
        self._output.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub means a 1-tuple
        return reply

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
            future = self._pending.popleft()
            if not future.done():  # it is done if its request was cancelled
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(ConnectionError(str(error or "closed by Redis")))

    def _fail(self, failure: ConnectionError) -> None:
        if self.lost.done():
            return
        self._failure = failure
        self.lost.set_result(None)
        for future in self._pending:
            if not future.done():
                future.set_result(failure)
        self._pending.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _check_progress(self, previous_head: asyncio.Future[Any] | None) -> None:
        """Close the connection if the oldest command is the same as half a timeout ago."""
        if self.lost.done():
            return
        if previous_head is not None and self._pending and self._pending[0] is previous_head:
            self.close()
            return
        head = self._pending[0] if self._pending else None
        self._loop.call_later(self._timeout / 2, self._check_progress, head)


def _unwrap(reply: Any, command: Command) -> Any:
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith("WRONGTYPE"):
        raise unreadable(str(command[1]), "another type of key") from reply
    if isinstance(reply, ConnectionError) or not str(reply).startswith(ERRORS_OF_CALLERS):
        raise _unavailable() from reply
    raise reply


def unreadable(key: str, fault: str) -> RpcError:
    """Return the error of a read of stored data that cannot be read.

    Args:
        key: in Redis.
        fault: what is in its place, for people.
    """
    _unreadable_data.report(key=key, error=fault)
    return RpcError("VIEW_UNREADABLE", f"stored data cannot be read: {fault}", {"key": key})


def _unavailable() -> RpcError:
    return RpcError("READ_MODEL_UNAVAILABLE", "the read model is unreachable", retry_after=0.2)
