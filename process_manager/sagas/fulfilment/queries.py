"""`diptych.fulfilment.v1.QueryService`: queries about fulfilments, answered from the saga's rows."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from diptych.fulfilment.v1 import query_service_pb2 as protocol
from diptych.fulfilment.v1.types_pb2 import Fulfilment, Step
from sqlalchemy.exc import SQLAlchemyError

from contracts import page_tokens
from process_manager.freshness import Freshness
from process_manager.saga_reader import ListPosition, SagaReader, SagaRow, SentStep
from process_manager.sagas.fulfilment import FULFILMENT, facts, requests
from process_manager.sagas.fulfilment.facts import ClaimState
from runtime import jetstream
from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import invalid_page_token, read_page_token
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service

PAGE_SIZE = 20
"""Entries on a page unless the request sets another size."""

QueryHandler = Callable[[SagaReader, Any], Awaitable[Any]]
"""Takes a reader and a valid request; returns the response."""


def create_service(sagas: SagaReader, freshness: Freshness) -> Service:
    """Return the service.

    Args:
        sagas: reads the sagas.
        freshness: delays calls with a consistency token until the sagas are up to date.
    """
    service = protocol.DESCRIPTOR.services_by_name["QueryService"]
    queries: dict[str, QueryHandler] = {"GetFulfilment": get_fulfilment, "ListFulfilments": list_fulfilments}
    return Service(
        service, {name: _create_handler(query, sagas, freshness) for name, query in queries.items()}
    )


def _create_handler(query: QueryHandler, sagas: SagaReader, freshness: Freshness) -> Handler:
    async def handle(request: Any, context: Context) -> Any:
        try:
            await freshness.wait_for(FULFILMENT, request.at_least_as_fresh, context.time_remaining())
            return await query(sagas, request)
        except (SQLAlchemyError, OSError, *jetstream.UNREACHABLE) as error:
            raise RpcError("READ_MODEL_UNAVAILABLE", "the sagas cannot be read", retry_after=1.0) from error

    return handle


async def get_fulfilment(
    sagas: SagaReader, request: protocol.GetFulfilmentRequest
) -> protocol.GetFulfilmentResponse:
    details = await sagas.find(FULFILMENT.name, request.order_id)
    if details is None:
        raise RpcError.not_found("fulfilment", "FULFILMENT_NOT_FOUND", {"order_id": request.order_id})
    return protocol.GetFulfilmentResponse(fulfilment=to_message(details.row, details.steps))


async def list_fulfilments(
    sagas: SagaReader, request: protocol.ListFulfilmentsRequest
) -> protocol.ListFulfilmentsResponse:
    status = Fulfilment.State.Name(request.state).removeprefix("STATE_") if request.state else ""
    list_id, size = f"{FULFILMENT.name} {status}", request.page_size or PAGE_SIZE
    after = _parse_position(read_page_token(list_id, request.page_token))
    rows = await sagas.read_page(FULFILMENT.name, status=status, after=after, limit=size + 1)
    page = rows[:size]
    response = protocol.ListFulfilmentsResponse(fulfilments=[to_message(row) for row in page])
    if len(rows) > size:
        response.next_page_token = page_tokens.mint(list_id, msgspec.json.encode(page[-1].position).decode())
    return response


def _parse_position(last: str) -> ListPosition | None:
    try:
        return msgspec.json.decode(last, type=ListPosition) if last else None
    except msgspec.MsgspecError:
        raise invalid_page_token() from None


def to_message(row: SagaRow, steps: Sequence[SentStep] = ()) -> Fulfilment:
    state = msgspec.convert(row.state, facts.Fulfilment)
    view = Fulfilment(
        order_id=row.id,
        order_version=row.version,
        state=Fulfilment.State.Value(f"STATE_{row.status}"),
        waiting_for=row.waiting_for,
        rejection=state.rejection_reason,
        suspicion=state.suspicion,
        blocked_reason=row.blocked_reason,
        reservation_id="" if state.stock == ClaimState.NONE else requests.derive_reservation_id(state),
        hold_id="" if state.money == ClaimState.NONE else requests.derive_hold_id(state),
        steps=[_to_step_message(step) for step in steps],
    )
    view.state_start_time.FromDatetime(row.status_since)
    view.begin_time.FromDatetime(row.began_at)
    if row.due_at:
        view.due_time.FromDatetime(row.due_at)
    return view


def _to_step_message(sent_step: SentStep) -> Step:
    is_query = sent_step.method.split(".")[-1].startswith("QueryService")
    step = Step(
        name=sent_step.step,
        attempt=sent_step.attempt,
        method=sent_step.method,
        request_id="" if is_query else str(sent_step.request_id),
        outcome=sent_step.outcome or "",
        tries=sent_step.tries,
        error=sent_step.error or "",
    )
    step.decide_time.FromDatetime(sent_step.decided_at)
    if sent_step.answered_at:
        step.answer_time.FromDatetime(sent_step.answered_at)
    return step
