"""A Redis connection that receives the messages of all channels whose names match patterns.

How it works. Entering the context connects, authenticates and returns only after Redis has confirmed every
pattern, so that no later message is missed. Iterating yields messages. If none arrives for TIMEOUT seconds,
it subscribes again, which changes nothing; if the reply takes as long again, the connection counts as lost.
PING would not do: a Redis whose disk is full refuses it. Nothing reconnects here:
the iterator raises, and `ChangeNotifications` opens another subscription.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import hiredis

from runtime.redis.address import RedisAddress

TIMEOUT = 2.0
"""Seconds for subscribing, without a message before a probe, and for the reply to a probe."""
CHUNK_SIZE = 65_536


class Subscription:
    """Subscribes to patterns of channels while its context is open; iterating yields `(channel, message)`.

    Raises:
        OSError, TimeoutError: the connection cannot be opened, or is lost.
        ValueError: the peer does not speak Redis's protocol, or Redis rejects a command.
    """

    def __init__(self, address: RedisAddress, patterns: Sequence[str]) -> None:
        self._address = address
        self._patterns = patterns
        self._parser = hiredis.Reader(protocolError=ValueError)

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(TIMEOUT):
            self._reader, self._writer = await self._address.open_streams()
            try:
                for command in self._address.handshake:
                    self._send(*command)
                self._send("PSUBSCRIBE", *self._patterns)
                confirmed = 0
                while confirmed < len(self._patterns):
                    confirmed += (await self._read_reply())[:1] == [b"psubscribe"]
            except BaseException:
                self._writer.close()
                raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, bytes]:
        while True:
            reply = await self._read_reply_or_probe()
            if reply[0] == b"pmessage":
                return reply[2].decode(), reply[3]

    async def _read_reply_or_probe(self) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._read_reply()
        except TimeoutError:
            self._send("PSUBSCRIBE", self._patterns[0])
            async with asyncio.timeout(TIMEOUT):
                return await self._read_reply()

    async def _read_reply(self) -> Any:
        """Return the next reply of Redis: a list, except in reply to the handshake."""
        while (reply := self._parser.gets()) is False:
            if not (data := await self._reader.read(CHUNK_SIZE)):
                raise ConnectionError("closed by Redis")
            self._parser.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise ValueError(str(reply))
        return reply

    def _send(self, *command: str | int) -> None:
        self._writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub means a 1-tuple
