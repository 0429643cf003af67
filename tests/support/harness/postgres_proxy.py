"""A proxy before PostgreSQL that counts the exchanges of its clients, and cuts connections at one of them.

An exchange is what a client sends before it waits, and the answer to it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext

ENDS = (b"S", b"H", b"Q", b"p", b"X")
"""The messages after which a client waits: Sync, Flush, Query, its password, and the end of its session."""
SSL_REQUEST = 8
"""Bytes of the message that asks for TLS; no other one before the start is as short."""


class PostgresProxy:
    """Forwards connections from a port of its own to a PostgreSQL on this host.

    Args:
        target_port: the port of PostgreSQL.
        tls: the certificate that it shows to clients; None for connections without TLS.
    """

    def __init__(self, target_port: int, tls: SSLContext | None = None) -> None:
        self._target = target_port
        self._tls = tls
        self.exchanges = 0
        """The number of exchanges that clients have begun."""
        self.cuts = 0
        """The number of connections that were cut."""
        self.is_silent = False
        """Whether it keeps what clients send, so that they get no answer."""
        self._cut_at: int | None = None
        self._is_delivered = False

    def cut(self, exchange: int, *, is_delivered: bool) -> None:
        """Cut the connection of one of the next exchanges.

        Args:
            exchange: its number; 1 for the next one.
            is_delivered: whether PostgreSQL gets and answers it, so that only the answer is lost.
        """
        self._cut_at, self._is_delivered = self.exchanges + exchange, is_delivered

    @asynccontextmanager
    async def run(self) -> AsyncIterator[int]:
        """Forward connections; yield the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        postgres, to_postgres = await asyncio.open_connection("127.0.0.1", self._target)
        answers: asyncio.Task[None] | None = None
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                await self._start(client, to_client, to_postgres)
                answers = asyncio.create_task(_forward(postgres, to_client))
                while True:
                    messages = await _read_exchange(client)
                    self.exchanges += 1
                    is_cut = self.exchanges == self._cut_at
                    if is_cut:
                        self.cuts += 1
                        answers.cancel()
                        await asyncio.gather(answers, return_exceptions=True)
                    if is_cut and not self._is_delivered:
                        return
                    if self.is_silent:
                        continue
                    to_postgres.write(messages)
                    if is_cut:
                        await postgres.read(1)
                        return
            finally:
                if answers is not None:
                    answers.cancel()
                to_client.close()
                to_postgres.close()

    async def _start(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter, to_postgres: asyncio.StreamWriter
    ) -> None:
        """Forward the messages before the first that has a type."""
        message = await _read_message(client)
        if len(message) == SSL_REQUEST:
            to_client.write(b"N" if self._tls is None else b"S")
            if self._tls is not None:
                await to_client.start_tls(self._tls)
            message = await _read_message(client)
        if not self.is_silent:
            to_postgres.write(message)


async def _read_message(client: asyncio.StreamReader) -> bytes:
    """Return a message without a type."""
    length = await client.readexactly(4)
    return length + await client.readexactly(int.from_bytes(length, "big") - 4)


async def _read_exchange(client: asyncio.StreamReader) -> bytes:
    """Return the messages up to the last one of an exchange."""
    messages = b""
    while True:
        kind = await client.readexactly(1)
        messages += kind + await _read_message(client)
        if kind in ENDS:
            return messages


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)
        sink.close()
