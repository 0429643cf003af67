"""`diptych.sagas.v1.QueryService`: queries about all sagas, answered from their rows."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from diptych.sagas.v1 import query_service_pb2 as protocol
from diptych.sagas.v1.types_pb2 import OperatorAction, Saga, Step, StreamPosition, Timer

from contracts import streams
from process_manager.queries.saga_queries import SagaQueries, build_step, cut
from process_manager.queries.saga_records import OperatorAction as RecordedAction
from process_manager.queries.saga_records import SagaDetails, SagaFilter, SagaRow
from runtime.grpc.method import Context
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service

SelectLatest = Callable[[Sequence[Any], float], tuple[Sequence[Any], int]]


def create_service(queries: SagaQueries) -> Service:
    """Return the service."""

    async def get_saga(request: protocol.GetSagaRequest, context: Context) -> protocol.GetSagaResponse:
        details = await queries.find(request.saga, request.id, request, remaining=context.time_remaining())
        if details is None:
            metadata = {"saga": request.saga, "id": request.id}
            raise RpcError.not_found("sagas", "SAGA_NOT_FOUND", metadata)
        saga = describe_row(details.row, queries.sagas[request.saga].own_type)
        add_details(saga, details, queries.select_latest)
        return protocol.GetSagaResponse(saga=saga)

    async def list_sagas(request: protocol.ListSagasRequest, context: Context) -> protocol.ListSagasResponse:
        filter_ = SagaFilter(request.state, request.open_only, request.blocked_only, request.overdue_only)
        sagas, next_token = await queries.list_page(
            request.saga,
            filter_,
            request,
            lambda row: describe_row(row, queries.sagas[row.saga].own_type),
            remaining=context.time_remaining(),
        )
        return protocol.ListSagasResponse(sagas=sagas, next_page_token=next_token)

    service = protocol.DESCRIPTOR.services_by_name["QueryService"]
    return Service(service, {"GetSaga": get_saga, "ListSagas": list_sagas})


def describe_row(row: SagaRow, own_type: str) -> Saga:
    """Return an instance without its steps, timers and operators' actions."""
    saga = Saga(
        saga=row.saga,
        id=row.id,
        state=row.status,
        ended=row.ended,
        waiting_for=cut(row.waiting_for),
        blocked_reason=cut(row.blocked_reason),
        unreadable=row.unreadable,
        streams=_describe_streams(row, own_type),
    )
    saga.state_start_time.FromDatetime(row.status_since)
    saga.begin_time.FromDatetime(row.began_at)
    if row.due_at:
        saga.due_time.FromDatetime(row.due_at)
    return saga


def add_details(saga: Saga, details: SagaDetails, select: SelectLatest) -> None:
    """Add the steps, timers and operators' actions; only some of them if they are too many for a response.

    Args:
        saga: gets them.
        details: has them.
        select: returns the last of messages that fit into a share of the response, and the number omitted.
    """
    steps = [build_step(Step, step, denied=step.denied) for step in details.steps]
    latest_steps, saga.omitted_step_count = select(steps, 0.5)
    saga.steps.extend(latest_steps)
    timers = [_describe_timer(*timer) for timer in details.timers.items()]
    next_timers, saga.omitted_timer_count = select(timers[::-1], 0.2)
    saga.timers.extend(reversed(next_timers))
    actions = [_describe_action(action) for action in details.operator_actions]
    latest_actions, saga.omitted_operator_action_count = select(actions, 0.2)
    saga.operator_actions.extend(latest_actions)


def _describe_timer(name: str, due_at: datetime) -> Timer:
    message = Timer(name=name)
    message.due_time.FromDatetime(due_at)
    return message


def _describe_action(action: RecordedAction) -> OperatorAction:
    message = OperatorAction(action=action.action, reason=cut(action.reason), operator=cut(action.operator))
    message.time.FromDatetime(action.at)
    return message


def _describe_streams(row: SagaRow, own_type: str) -> Sequence[StreamPosition]:
    other = [
        StreamPosition(stream=stream, version=position["version"], failed=bool(position["failed_input"]))
        for stream, position in row.other_streams.items()
    ]
    if not own_type:
        return other
    own = streams.stream_name(own_type, row.id)
    return [StreamPosition(stream=own, version=row.version, failed=bool(row.failed_input)), *other]
