"""Reads from Redis for all requests of a process: one connection, commands pipelined as they come.

Replies come in the order of the commands, so a reply needs no more than the head of a queue; commands that
come together leave in one write. That costs a tenth of a pool, where each read checks a connection out and
waits for its own round trip.
"""

import asyncio
from collections import deque
from typing import Any, Self

import hiredis

from query_server.redis_address import RedisAddress
from runtime.backoff import Backoff
from runtime.batching import AdaptiveBatcher
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

PATIENCE = 2.0
"""Seconds within which Redis answers, or the connection is given up."""
MAX_WAIT = 0.005
"""Seconds that a command waits for others at the most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between attempts to connect."""
NOT_NOW = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "TRYAGAIN")
"""The errors of a Redis that will answer later."""

log = logs.get_logger(__name__)

Command = tuple[str | bytes | int, ...]


class Reader:
    """Sends commands and returns their replies: bytes, int, None, or a list of them.

    Used as an asynchronous context manager, it tries to connect on entering, and again in the background
    until it succeeds and whenever the connection breaks. Every call raises

        Refusal: `READ_MODEL_UNAVAILABLE`; Redis is away, or did not answer for PATIENCE seconds.
        hiredis.ReplyError: Redis refused the command, which is a mistake of ours.
    """

    def __init__(self, address: RedisAddress, patience: float = PATIENCE) -> None:
        self._address = address
        self._patience = patience
        self._wire: _Wire | None = None
        self._tried = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_connected())
        await self._tried.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeper.cancel()
        await asyncio.wait((self._keeper,))

    async def call(self, *command: str | bytes | int) -> Any:
        """Return the reply to one command."""
        return _value(await self._send(command))

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Return the replies to several commands, which Redis executes in this order."""
        replies = [self._send(command) for command in commands]
        if replies:
            await replies[-1]  # the others came before it
        return [_value(reply.result()) for reply in replies]

    async def ping(self) -> bool:
        """Return whether Redis answers."""
        try:
            return bool(await self.call("PING") == b"PONG")
        except RpcError:
            return False

    def _send(self, command: Command) -> asyncio.Future[Any]:
        if self._wire is None or self._wire.lost.done():
            raise _unavailable()
        return self._wire.send(command)

    async def _keep_connected(self) -> None:
        backoff, said = Backoff(FIRST_PAUSE, LONGEST_PAUSE), ""
        while True:
            wire = _Wire(self._patience)
            try:
                await self._connect(wire)
                log.info("Redis connected", address=str(self._address))
                backoff.reset()
                said = ""
                await self._serve_with(wire)
                log.warning("Redis connection lost", address=str(self._address))
            except Exception as error:  # whatever it is, the next attempt may succeed
                if repr(error) != said:
                    said = repr(error)
                    log.warning("Redis is away", address=str(self._address), error=said)
            finally:
                wire.close()
            self._tried.set()
            await asyncio.sleep(backoff.next_pause())

    async def _serve_with(self, wire: "_Wire") -> None:
        """Let calls use a connection until it breaks."""
        self._wire = wire
        self._tried.set()
        try:
            await wire.lost
        finally:
            self._wire = None

    async def _connect(self, wire: "_Wire") -> None:
        async with asyncio.timeout(self._patience):
            await self._address.connect(lambda: wire)
            for command in (*self._address.greeting, ("PING",)):
                _value(await wire.send(command))


class _Wire(asyncio.Protocol):
    """One connection. A broken one resolves what waits with an exception as the result.

    It never raises through a future, for of a pipeline's futures only the last is awaited.
    """

    def __init__(self, patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._parser = hiredis.Reader()
        self._out: list[bytes] = []
        self._batcher = AdaptiveBatcher(lambda: len(self._out), self._flush, MAX_WAIT)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: Any = None
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._watch(None)

    def send(self, command: Command) -> asyncio.Future[Any]:
        reply = self._loop.create_future()
        self._waiting.append(reply)
        if not self._out:
            self._batcher.begin()
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub means a 1-tuple
        return reply

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            waiting = self._waiting.popleft()
            if not waiting.done():  # else its request was cancelled
                waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        broken = ConnectionError(str(error or "closed by Redis"))
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(broken)
        self._waiting.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _watch(self, head: asyncio.Future[Any] | None) -> None:
        """Give the connection up where the same reply was waited for half of the patience ago."""
        if self.lost.done():
            return
        if head is not None and self._waiting and self._waiting[0] is head:
            self.close()
            return
        head = self._waiting[0] if self._waiting else None
        self._loop.call_later(self._patience / 2, self._watch, head)


def _value(reply: Any) -> Any:
    if not isinstance(reply, Exception):
        return reply
    if isinstance(reply, ConnectionError) or str(reply).startswith(NOT_NOW):
        raise _unavailable() from reply
    raise reply


def _unavailable() -> RpcError:
    return RpcError("READ_MODEL_UNAVAILABLE", "the read model cannot be reached now", retry_after=0.2)
