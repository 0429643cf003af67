"""A TCP proxy that injects faults between a client and a server, or adds TLS to the server."""

import asyncio
from contextlib import suppress
from ssl import SSLContext
from typing import Self


class TcpProxy:
    """Forwards connections from a port of its own to a server on this host, from `start` to `stop`."""

    def __init__(self, target_port: int, tls: SSLContext | None = None) -> None:
        self._target = target_port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0
        self.flowing = asyncio.Event()
        """Clear it to forward nothing, so that the server seems to hang."""
        self.flowing.set()
        self.holds_requests = False
        """Whether something from the client waits for `flowing`."""
        self.drops_answers = False
        """Whether to drop everything that the server sends."""

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._pipes) // 2

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on a free port, or after `stop` on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is None:
            return
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink, are_answers in ((reader, server_writer, False), (server_reader, writer, True)):
            pipe = asyncio.create_task(self._pump(source, sink, are_answers))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, are_answers: bool
    ) -> None:
        with suppress(ConnectionError):
            try:
                while data := await source.read(65_536):
                    if not are_answers:
                        self.holds_requests = not self.flowing.is_set()
                    await self.flowing.wait()
                    if are_answers and self.drops_answers:
                        continue
                    sink.write(data)
                    await sink.drain()
            finally:
                sink.close()
