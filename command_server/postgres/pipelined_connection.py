"""Transactions whose BEGIN and COMMIT travel with their first and last statements.

How it works. PostgreSQL executes all messages before a Sync one after the other, and after an error it skips
the rest. So BEGIN, put before a statement in the same Sync, and COMMIT, put behind it, cost no round trip of
their own. asyncpg sends one statement per Sync and offers no pipeline, but it reads the answers of such a
sequence as those of one statement. Therefore asyncpg writes to a `_Pipeline`, which adds the two commands to
the messages of the next statement and passes them to the transport. Everything else is asyncpg's: the
connection, its prepared statements, the encoding of values, time-outs and errors.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from runtime.postgres_connection import connect


def _build_message(kind: bytes, content: bytes) -> bytes:
    return kind + (len(content) + 4).to_bytes(4, "big") + content


def _build_command(command: bytes) -> bytes:
    """Return the messages Parse, Bind and Execute of a command, as an unnamed statement."""
    parse = _build_message(b"P", b"\0" + command + b"\0\0\0")
    return parse + _build_message(b"B", bytes(8)) + _build_message(b"E", bytes(5))


BEGIN = _build_command(b"BEGIN ISOLATION LEVEL READ COMMITTED")
COMMIT = _build_command(b"COMMIT")
BIND = b"B"
SYNC = _build_message(b"S", b"")


class PipelinedConnection(asyncpg.Connection):
    """A connection that begins and commits transactions without round trips of their own."""

    def __init__(self, protocol: Any, transport: "_Pipeline", loop: "_PipelineLoop", *arguments: Any) -> None:
        # asyncpg finds its tasks by their loop, and its cancel requests need no pipeline.
        super().__init__(protocol, transport, loop.wrapped, *arguments)
        self._pipeline = transport
        self._kept_statements: dict[str, PreparedStatement[Any]] = {}

    async def fetch_in_transaction(self, query: str, *values: Any) -> Sequence[Any]:
        """Return the rows of a statement; it begins a transaction at READ COMMITTED if there is none."""
        statement = await self._prepare_once(query)
        if self.is_in_transaction():
            return await statement.fetch(*values)
        with self._pipeline.surround(BEGIN, b""):
            rows: Sequence[Any] = await statement.fetch(*values)
        if not self.is_in_transaction():
            raise asyncpg.InterfaceError("PostgreSQL has not begun the transaction")
        return rows

    async def execute_and_commit(self, query: str, *values: Any) -> None:
        """Execute a statement, and commit the transaction, which begins if there is none.

        Raises:
            asyncpg.InterfaceError: whether it has committed is unknown.
        """
        statement = await self._prepare_once(query)
        with self._pipeline.surround(b"" if self.is_in_transaction() else BEGIN, COMMIT):
            await statement.fetch(*values)
        if (status := statement.get_statusmsg()) != "COMMIT":
            raise asyncpg.InterfaceError(f"PostgreSQL answered {status} to COMMIT")

    async def _prepare_once(self, query: str) -> "PreparedStatement[Any]":
        """Return a statement that needs no other messages than its own, for instance to look up its types."""
        statement = self._kept_statements.get(query)
        if statement is None:
            statement = self._kept_statements[query] = await self.prepare(query)
        return statement


async def connect_pipelined(**arguments: Any) -> "asyncpg.Connection[Any]":
    """Return a `PipelinedConnection`; see `runtime.postgres_connection.connect`."""
    return await connect(loop=_PipelineLoop(), connection_class=PipelinedConnection, **arguments)


class _Pipeline:
    """A transport that adds commands to the messages of the next statement."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._before = self._behind = b""

    def surround(self, before: bytes, behind: bytes) -> "_Pipeline":
        """Add commands to the next statement in a `with` block."""
        self._before, self._behind = before, behind
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        # Values that cannot be encoded raise before anything is sent.
        self._before = self._behind = b""

    def write(self, data: Any) -> None:
        if self._before or self._behind:
            if data[:1] != BIND or data[-len(SYNC) :] != SYNC:
                raise asyncpg.InternalClientError("these are not the messages of one statement")
            data = b"".join((self._before, data[: -len(SYNC)], self._behind, SYNC))
            self._before = self._behind = b""
        self.transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class _PipelineLoop:
    """An event loop whose connections have a `_Pipeline` for a transport."""

    def __init__(self) -> None:
        self.wrapped = asyncio.get_running_loop()

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *arguments: Any, **options: Any
    ) -> tuple[_Pipeline, asyncio.Protocol]:
        transport, _ = await self.wrapped.create_connection(asyncio.Protocol, *arguments, **options)
        return _adopt(transport, factory())

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.Protocol], *arguments: Any
    ) -> tuple[_Pipeline, asyncio.Protocol]:
        transport, _ = await self.wrapped.create_unix_connection(asyncio.Protocol, *arguments)
        return _adopt(transport, factory())

    async def start_tls(self, pipeline: _Pipeline, *arguments: Any, **options: Any) -> _Pipeline:
        transport = await self.wrapped.start_tls(pipeline.transport, *arguments, **options)
        if transport is None:
            raise ConnectionError("the connection was closed during the TLS handshake")
        return _Pipeline(transport)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


def _adopt(transport: asyncio.Transport, protocol: asyncio.Protocol) -> tuple[_Pipeline, asyncio.Protocol]:
    pipeline = _Pipeline(transport)
    transport.set_protocol(protocol)
    protocol.connection_made(pipeline)  # type: ignore[arg-type] # it has the methods of a transport
    return pipeline, protocol
