"""`diptych.fulfilment.v1.QueryService`: how the fulfilment of orders goes, from the saga's own rows."""

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
from runtime import jetstream
from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import invalid_page_token, read_page_token
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service

PAGE_SIZE = 20
"""Entries on a page where the request does not say."""

QueryHandler = Callable[[SagaReader, Any], Awaitable[Any]]
"""Takes the sagas and a valid request; returns the response."""


def fulfilment_queries(sagas: SagaReader, freshness: Freshness) -> Service:
    """Return the service.

    Args:
        sagas: reads them.
        freshness: makes calls with a token wait.
    """
    service = protocol.DESCRIPTOR.services_by_name["QueryService"]
    answers: dict[str, QueryHandler] = {"GetFulfilment": get_fulfilment, "ListFulfilments": list_fulfilments}
    return Service(service, {name: _handler(answer, sagas, freshness) for name, answer in answers.items()})


def _handler(answer: QueryHandler, sagas: SagaReader, freshness: Freshness) -> Handler:
    async def handle(request: Any, context: Context) -> Any:
        try:
            await freshness.reached(FULFILMENT, request.at_least_as_fresh, context.time_remaining())
            return await answer(sagas, request)
        except (SQLAlchemyError, OSError, *jetstream.UNREACHABLE) as error:
            raise RpcError("READ_MODEL_UNAVAILABLE", "the sagas cannot be read", retry_after=1.0) from error

    return handle


async def get_fulfilment(
    sagas: SagaReader, request: protocol.GetFulfilmentRequest
) -> protocol.GetFulfilmentResponse:
    """Answer with one fulfilment."""
    found = await sagas.find(FULFILMENT.name, request.order_id)
    if found is None:
        named = {"order_id": request.order_id}
        raise RpcError.not_found("fulfilment", "FULFILMENT_NOT_FOUND", named)
    return protocol.GetFulfilmentResponse(fulfilment=shown(found.row, found.steps))


async def list_fulfilments(
    sagas: SagaReader, request: protocol.ListFulfilmentsRequest
) -> protocol.ListFulfilmentsResponse:
    """Answer with a page of them."""
    status = Fulfilment.State.Name(request.state).removeprefix("STATE_") if request.state else ""
    listed, size = f"{FULFILMENT.name} {status}", request.page_size or PAGE_SIZE
    after = _place(read_page_token(listed, request.page_token))
    rows = await sagas.page(FULFILMENT.name, status=status, after=after, limit=size + 1)
    page = rows[:size]
    response = protocol.ListFulfilmentsResponse(fulfilments=[shown(row) for row in page])
    if len(rows) > size:
        response.next_page_token = page_tokens.mint(listed, msgspec.json.encode(page[-1].position).decode())
    return response


def _place(last: str) -> ListPosition | None:
    try:
        return msgspec.json.decode(last, type=ListPosition) if last else None
    except msgspec.MsgspecError:
        raise invalid_page_token() from None


def shown(row: SagaRow, steps: Sequence[SentStep] = ()) -> Fulfilment:
    """Return a fulfilment as it is answered."""
    known = msgspec.convert(row.state, facts.Fulfilment)
    view = Fulfilment(
        order_id=row.id,
        order_version=row.version,
        state=Fulfilment.State.Value(f"STATE_{row.status}"),
        waiting_for=row.waiting_for,
        rejection=known.refused,
        suspicion=known.suspicion,
        blocked_reason=row.blocked_reason,
        reservation_id="" if known.stock == facts.NONE else requests.reservation_id(known),
        hold_id="" if known.money == facts.NONE else requests.hold_id(known),
        steps=[_step(step) for step in steps],
    )
    view.state_start_time.FromDatetime(row.status_since)
    view.begin_time.FromDatetime(row.began_at)
    if row.due_at:
        view.due_time.FromDatetime(row.due_at)
    return view


def _step(sent: SentStep) -> Step:
    query = sent.method.split(".")[-1].startswith("QueryService")
    step = Step(
        name=sent.step,
        attempt=sent.attempt,
        method=sent.method,
        request_id="" if query else str(sent.request_id),
        outcome=sent.outcome or "",
        tries=sent.tries,
        error=sent.error or "",
    )
    step.decide_time.FromDatetime(sent.decided_at)
    if sent.answered_at:
        step.answer_time.FromDatetime(sent.answered_at)
    return step
