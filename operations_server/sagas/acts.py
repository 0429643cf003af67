"""Operators' acts on sagas: retry and abort, delivered as inputs by the sagas' own engine."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from contracts import streams
from process_manager.engine import Engine, ReadStream
from process_manager.feeds.stream_reads import ReplicaBehind
from process_manager.groups.delivery import Progress
from process_manager.groups.group_commit import RaceLost
from process_manager.groups.instance import RowUnreadable
from process_manager.groups.instance_inputs import UnknownSaga
from process_manager.postgres.due_work import Feed
from process_manager.postgres.store import SagaStore
from process_manager.queries.saga_reader import SagaReader
from process_manager.saga import ActionNotPossible, Saga
from runtime import jetstream
from runtime.grpc import caller
from runtime.grpc.rpc_error import RpcError

MAX_DURATION = 8.0
"""Seconds that an act may take; a commit by then stays."""
FAILURES = (
    *(SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, RaceLost, ReplicaBehind),
    *jetstream.UNREACHABLE,
)
"""The errors while PostgreSQL or NATS is unreachable, or other transactions keep an instance's rows."""


class SagaActs:
    """Retries and aborts instances.

    Args:
        store: of the process manager's role.
        sagas: the definitions by name.
        reader: finds instances.
        read_stream: reads the events on which an instance has failed.
    """

    def __init__(
        self,
        store: SagaStore,
        sagas: Mapping[str, Saga[Any]],
        reader: SagaReader,
        read_stream: ReadStream,
    ) -> None:
        self._sagas = sagas
        self._reader = reader
        self._engine = Engine(store, sagas.values(), read_stream)

    async def retry(self, request: Any) -> str:
        """Retry an instance; return the name of its saga.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `SAGA_NOT_FOUND`, `SAGA_AMBIGUOUS`, `ACTION_NOT_POSSIBLE`,
                `SAGA_UNREADABLE`, `WRITE_MODEL_UNAVAILABLE`.
        """
        name = await self.find_name(request)
        operator = caller.current().subject
        async with _report(name, request.id):
            await self._engine.retry(name, request.id, operator, request.reason)
        return name

    async def abort(self, request: Any) -> str:
        """Abort an instance; return the name of its saga.

        Raises:
            RpcError: as `retry` does.
        """
        name = await self.find_name(request)
        operator = caller.current().subject
        async with _report(name, request.id):
            await self._engine.abort(name, request.id, request.reason, operator)
        return name

    async def deliver_failed(self, saga: str, id_: str) -> None:
        """Deliver the events that an instance failed on again.

        Raises:
            RpcError: as `retry`.
        """
        async with _report(saga, id_):
            await self._engine.deliver_failed(saga, id_)

    async def deliver_parked(self, saga: str, stream: str) -> None:
        """Deliver the events of a parked stream again, up to one that still fails.

        Raises:
            RpcError: `WRITE_MODEL_UNAVAILABLE`.
        """
        partition = streams.partition(streams.aggregate_id(stream))
        feed = Feed(saga, streams.stream_type(stream), partition)
        async with _report(saga, stream):
            while await self._engine.deliver_parked(feed, stream) is Progress.MORE:
                pass

    async def find_name(self, request: Any) -> str:
        """Return the saga of a request's instance.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `SAGA_NOT_FOUND`, `SAGA_AMBIGUOUS`.
        """
        names = await self.find_names(request)
        if len(names) > 1:
            metadata = {"id": request.id, "sagas": ", ".join(names)}
            raise RpcError.of_rule("operations", "SAGA_AMBIGUOUS", metadata)
        return names[0]

    async def find_names(self, request: Any) -> Sequence[str]:
        """Return the sagas with an instance of a request's id, only the request's if it names one.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `SAGA_NOT_FOUND`.
        """
        if request.saga and request.saga not in self._sagas:
            metadata = {"saga": request.saga, "known": ", ".join(self._sagas)}
            raise RpcError.not_found("operations", "SAGA_UNKNOWN", metadata)
        names = await self._reader.find_names(request.id)
        if chosen := [name for name in names if request.saga in ("", name)]:
            return chosen
        raise RpcError.not_found("operations", "SAGA_NOT_FOUND", {"saga": request.saga, "id": request.id})


@asynccontextmanager
async def _report(saga: str, id_: str) -> AsyncIterator[None]:
    """Turn the engine's errors into errors for the caller."""
    metadata = {"saga": saga, "id": id_}
    try:
        async with asyncio.timeout(MAX_DURATION):
            yield
    except UnknownSaga:
        raise RpcError.not_found("operations", "SAGA_NOT_FOUND", metadata) from None
    except ActionNotPossible as error:
        raise RpcError.of_rule(
            "operations", "ACTION_NOT_POSSIBLE", {**metadata, "cause": str(error)}
        ) from error
    except RowUnreadable as error:
        raise RpcError.of_rule("operations", "SAGA_UNREADABLE", {**metadata, "cause": str(error)}) from error
    except FAILURES as error:
        text = "PostgreSQL or NATS did not answer in time; the act may have taken effect"
        raise RpcError("WRITE_MODEL_UNAVAILABLE", text, retry_after=1.0) from error
