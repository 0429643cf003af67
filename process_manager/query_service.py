"""`diptych.sagas.v1.QueryService`: queries about all sagas, answered from their rows."""

from collections.abc import Sequence

from diptych.sagas.v1 import query_service_pb2 as protocol
from diptych.sagas.v1.types_pb2 import OperatorAction, Saga, Step, StreamPosition, Timer

from contracts import streams
from process_manager.saga_queries import SagaQueries, build_step
from process_manager.saga_records import SagaDetails, SagaFilter, SagaRow
from runtime.grpc.method import Context
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service


def create_service(queries: SagaQueries) -> Service:
    """Return the service."""

    async def get_saga(request: protocol.GetSagaRequest, context: Context) -> protocol.GetSagaResponse:
        details = await queries.find(request.saga, request.id, request, remaining=context.time_remaining())
        if details is None:
            metadata = {"saga": request.saga, "id": request.id}
            raise RpcError.not_found("sagas", "SAGA_NOT_FOUND", metadata)
        return protocol.GetSagaResponse(saga=_describe(details, queries.sagas[request.saga].own_type))

    async def list_sagas(request: protocol.ListSagasRequest, context: Context) -> protocol.ListSagasResponse:
        filter_ = SagaFilter(request.state, request.open_only, request.blocked_only, request.overdue_only)
        page, next_token = await queries.list_page(
            request.saga, filter_, request, remaining=context.time_remaining()
        )
        sagas = [_describe_row(row, queries.sagas[row.saga].own_type) for row in page]
        return protocol.ListSagasResponse(sagas=sagas, next_page_token=next_token)

    service = protocol.DESCRIPTOR.services_by_name["QueryService"]
    return Service(service, {"GetSaga": get_saga, "ListSagas": list_sagas})


def _describe_row(row: SagaRow, own_type: str) -> Saga:
    """Return an instance without its steps, timers and operators' actions."""
    saga = Saga(
        saga=row.saga,
        id=row.id,
        state=row.status,
        ended=row.ended,
        waiting_for=row.waiting_for,
        blocked_reason=row.blocked_reason,
        streams=_describe_streams(row, own_type),
    )
    saga.state_start_time.FromDatetime(row.status_since)
    saga.begin_time.FromDatetime(row.began_at)
    if row.due_at:
        saga.due_time.FromDatetime(row.due_at)
    return saga


def _describe(details: SagaDetails, own_type: str) -> Saga:
    saga = _describe_row(details.row, own_type)
    saga.steps.extend(build_step(Step, step, denied=step.denied) for step in details.steps)
    for name, due_at in details.timers.items():
        timer = Timer(name=name)
        timer.due_time.FromDatetime(due_at)
        saga.timers.append(timer)
    for each in details.operator_actions:
        action = OperatorAction(action=each.action, reason=each.reason, operator=each.operator)
        action.time.FromDatetime(each.at)
        saga.operator_actions.append(action)
    return saga


def _describe_streams(row: SagaRow, own_type: str) -> Sequence[StreamPosition]:
    other = [
        StreamPosition(stream=stream, version=position["version"], failed=bool(position["failed_input"]))
        for stream, position in row.other_streams.items()
    ]
    if not own_type:
        return other
    own = streams.stream_name(own_type, row.id)
    return [StreamPosition(stream=own, version=row.version, failed=bool(row.failed_input)), *other]
