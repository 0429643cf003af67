"""`ListSagas`, `GetSaga`, `RetrySaga` and `AbortSaga`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.sagas.v1.types_pb2 import Saga as SagaMessage

from operations_server.acts import OperatorActs
from operations_server.records.database import report_failures
from operations_server.sagas.acts import SagaActs
from operations_server.sagas.lists import SagaLists
from process_manager.queries.query_service import add_details, describe_row
from process_manager.queries.saga_queries import select_latest
from process_manager.queries.saga_reader import SagaReader
from process_manager.saga import Saga
from runtime.grpc.method import Context, Handler
from runtime.grpc.response_size import MAX_PAGE_BYTES
from runtime.grpc.rpc_error import RpcError

MAX_STEPS = 1_000
"""Steps, timers and operators' actions of an instance that are read, the latest."""

Sagas = Mapping[str, Saga[Any]]


class SagaDetailsReader:
    """Reads instances with their steps.

    Args:
        sagas: the definitions by name.
        reader: reads the rows.
    """

    def __init__(self, sagas: Sagas, reader: SagaReader) -> None:
        self._sagas = sagas
        self._reader = reader

    async def read(self, name: str, id_: str, share: float = 1.0) -> SagaMessage | None:
        """Return an instance; None if it has gone.

        Args:
            name: the saga's name.
            id_: the instance's id.
            share: the part of a response that it may take.
        """
        details = await self._reader.find(name, id_, most=MAX_STEPS)
        if details is None:
            return None
        definition = self._sagas.get(name)
        message = describe_row(details.row, definition.own_type if definition else "")
        add_details(
            message, details, lambda parts, part: select_latest(parts, int(MAX_PAGE_BYTES * part * share))
        )
        if len(details.steps) == MAX_STEPS:
            message.omitted_step_count += await self._reader.count_steps(name, id_) - MAX_STEPS
        return message


class SagaHandlers:
    """The handlers.

    Args:
        lists: lists instances.
        details: reads instances.
        saga_acts: does the acts.
    """

    def __init__(self, lists: SagaLists, details: SagaDetailsReader, saga_acts: SagaActs) -> None:
        self._lists = lists
        self._details = details
        self._acts = saga_acts

    def create(self, acts: OperatorActs) -> Mapping[str, Handler]:
        """Return the handlers by the names of their methods; the acts are on record."""
        retry = partial(self._act, self._acts.retry, protocol.RetrySagaResponse)
        abort = partial(self._act, self._acts.abort, protocol.AbortSagaResponse)
        return {
            "ListSagas": report_failures(self._list_sagas),
            "GetSaga": report_failures(self._get_saga),
            "RetrySaga": acts.record("RetrySaga", report_failures(retry), _describe_target),
            "AbortSaga": acts.record("AbortSaga", report_failures(abort), _describe_target),
        }

    async def _list_sagas(self, request: protocol.ListSagasRequest, _context: Context) -> Any:
        return await self._lists.list_page(request)

    async def _get_saga(
        self, request: protocol.GetSagaRequest, _context: Context
    ) -> protocol.GetSagaResponse:
        names = await self._acts.find_names(request)
        found = [await self._details.read(name, request.id, 1 / len(names)) for name in names]
        return protocol.GetSagaResponse(sagas=[each for each in found if each is not None])

    async def _act(
        self, do: Callable[[Any], Awaitable[str]], response: Any, request: Any, _context: Context
    ) -> Any:
        name = await do(request)
        saga = await self._details.read(name, request.id)
        if saga is None:  # it began at a deadline that has ended meanwhile
            raise RpcError.not_found("operations", "SAGA_NOT_FOUND", {"saga": name, "id": request.id})
        return response(saga=saga)


def _describe_target(request: Any) -> str:
    return f"{request.saga or 'saga'} {request.id}"
