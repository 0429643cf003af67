"""A connection to Redis that hears channels. One that is silent for too long counts as lost."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import hiredis

from query_server.redis_address import RedisAddress

PATIENCE = 2.0
"""Seconds within which Redis answers a ping."""
CHUNK = 65_536


class Subscription:
    """Hears channels from entering the context on; iterating raises when the connection is lost.

    Raises:
        OSError, TimeoutError: the connection cannot be made, or is lost.
        ValueError: what comes in is not Redis's protocol, or Redis refuses to subscribe.
    """

    def __init__(self, address: RedisAddress, channels: Sequence[str]) -> None:
        self._address = address
        self._channels = channels
        self._parser = hiredis.Reader(protocolError=ValueError)

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(PATIENCE):
            self._reader, self._writer = await self._address.open()
            try:
                for command in self._address.greeting:
                    self._send(*command)
                self._send("SUBSCRIBE", *self._channels)
                confirmed = 0
                while confirmed < len(self._channels):
                    confirmed += (await self._reply())[:1] == [b"subscribe"]
            except BaseException:
                self._writer.close()
                raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, bytes]:
        """Return the next message and its channel."""
        while True:
            reply = await self._reply_or_ping()
            if reply[0] == b"message":
                return reply[1].decode(), reply[2]

    async def _reply_or_ping(self) -> Any:
        try:
            return await asyncio.wait_for(self._reply(), PATIENCE)
        except TimeoutError:
            self._send("PING")
            return await asyncio.wait_for(self._reply(), PATIENCE)

    async def _reply(self) -> Any:
        """Return what Redis sends next; a list, except for replies to the greeting."""
        while (reply := self._parser.gets()) is False:
            if not (data := await self._reader.read(CHUNK)):
                raise ConnectionError("closed by Redis")
            self._parser.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise ValueError(str(reply))
        return reply

    def _send(self, *command: str | int) -> None:
        self._writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub means a 1-tuple
