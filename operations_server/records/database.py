"""Connections to PostgreSQL for questions about records, apart from those of other questions and acts."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.envelope import RecordedEvent
from contracts.subject_keys import WrappedKey
from operations_server.stores import create_database
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError
from runtime.subject_keys import READ_KEYS, SubjectKeys

if TYPE_CHECKING:
    Driver = asyncpg.Connection[Any]
else:
    Driver = asyncpg.Connection  # it is generic in its types alone
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError, OSError, TimeoutError)
"""The errors while PostgreSQL is unreachable, refuses or is too slow."""


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[Driver]:
    """Yield a connection of asyncpg itself, on which each statement commits by itself."""
    async with engine.connect() as connection:
        try:
            # SQLAlchemy's executor costs more than most of these statements.
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            yield driver
        except BaseException:
            await connection.invalidate()  # it may be dead, or in the middle of a statement
            raise


class Database:
    """A pool of connections in the role of the operations server.

    Args:
        database_url: `postgresql://…`.
        statement_timeout: seconds after which PostgreSQL ends a statement.
        pool_size: maximum number of connections.
        keys: open events; None to leave what is sealed as it is.
    """

    def __init__(
        self,
        database_url: str,
        *,
        statement_timeout: float = 2.0,
        pool_size: int = 4,
        keys: SubjectKeys | None = None,
    ) -> None:
        self._keys = keys
        self._engine: AsyncEngine = create_database(
            database_url, statement_timeout=statement_timeout, pool_size=pool_size
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Driver]:
        """Yield a connection on which each statement commits by itself."""
        async with connect(self._engine) as driver:
            yield driver

    async def open(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return events in clear, as far as there are keys."""
        return events if self._keys is None else await self._keys.open(events, self._fetch_keys)

    async def _fetch_keys(self, ids: Collection[bytes]) -> list[WrappedKey]:
        return [WrappedKey(*row) for row in await self.fetch(READ_KEYS, list(ids))]

    async def fetch(self, statement: str, *values: Any) -> Sequence[Any]:
        async with self.connect() as driver:
            rows: Sequence[Any] = await driver.fetch(statement, *values)
            return rows

    async def fetch_value(self, statement: str, *values: Any) -> Any:
        async with self.connect() as driver:
            return await driver.fetchval(statement, *values)

    async def close(self) -> None:
        await self._engine.dispose()


@contextmanager
def report_unavailable() -> Iterator[None]:
    """Turn failures of PostgreSQL into an error for the caller.

    Raises:
        RpcError: `WRITE_MODEL_UNAVAILABLE`.
    """
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        text = "PostgreSQL took too long for a part of the records"
        raise RpcError("WRITE_MODEL_UNAVAILABLE", text, retry_after=1.0) from error
    except FAILURES as error:
        text = "the records cannot be read from PostgreSQL"
        raise RpcError("WRITE_MODEL_UNAVAILABLE", text, retry_after=1.0) from error


def report_failures(handler: Handler) -> Handler:
    """Return a handler that fails as `report_unavailable` does."""

    async def handle(request: Any, context: Context) -> Any:
        with report_unavailable():
            return await handler(request, context)

    return handle
