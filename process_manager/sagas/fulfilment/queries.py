"""`diptych.fulfilment.v1.QueryService`: fulfilments, with the facts of their orders.

It translates what `SagaQueries` returns; `diptych.sagas.v1.QueryService` has the same for all sagas.
"""

import msgspec
from diptych.fulfilment.v1 import query_service_pb2 as protocol
from diptych.fulfilment.v1.types_pb2 import Fulfilment, Step

from process_manager.queries.saga_queries import SagaQueries, build_step, cut
from process_manager.queries.saga_records import SagaFilter, SagaRow
from process_manager.sagas.fulfilment import FULFILMENT, facts, requests
from process_manager.sagas.fulfilment.facts import ClaimState
from runtime.grpc.method import Context
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service


def create_service(queries: SagaQueries) -> Service:
    """Return the service."""

    async def get_fulfilment(
        request: protocol.GetFulfilmentRequest, context: Context
    ) -> protocol.GetFulfilmentResponse:
        details = await queries.find(
            FULFILMENT.name, request.order_id, request, remaining=context.time_remaining()
        )
        if details is None:
            raise RpcError.not_found("fulfilment", "FULFILMENT_NOT_FOUND", {"order_id": request.order_id})
        fulfilment = to_message(details.row)
        steps = [build_step(Step, step) for step in details.steps]
        latest_steps, fulfilment.omitted_step_count = queries.select_latest(steps, share=0.9)
        fulfilment.steps.extend(latest_steps)
        return protocol.GetFulfilmentResponse(fulfilment=fulfilment)

    async def list_fulfilments(
        request: protocol.ListFulfilmentsRequest, context: Context
    ) -> protocol.ListFulfilmentsResponse:
        state = Fulfilment.State.Name(request.state).removeprefix("STATE_") if request.state else ""
        fulfilments, next_token = await queries.list_page(
            FULFILMENT.name, SagaFilter(state), request, to_message, remaining=context.time_remaining()
        )
        return protocol.ListFulfilmentsResponse(fulfilments=fulfilments, next_page_token=next_token)

    service = protocol.DESCRIPTOR.services_by_name["QueryService"]
    return Service(service, {"GetFulfilment": get_fulfilment, "ListFulfilments": list_fulfilments})


def to_message(row: SagaRow) -> Fulfilment:
    """Return a fulfilment without its steps; of one that cannot be read, also without its facts."""
    name = f"STATE_{row.status}"
    is_known = name in Fulfilment.State.DESCRIPTOR.values_by_name
    view = Fulfilment(
        order_id=row.id,
        order_version=row.version,
        state=Fulfilment.State.Value(name) if is_known else Fulfilment.STATE_UNSPECIFIED,
        waiting_for=cut(row.waiting_for),
        blocked_reason=cut(row.blocked_reason if is_known else f"its state {row.status} is unknown"),
        unreadable=row.unreadable or not is_known,
    )
    if not row.unreadable:
        _add_facts(view, msgspec.convert(row.state, facts.Fulfilment))
    view.state_start_time.FromDatetime(row.status_since)
    view.begin_time.FromDatetime(row.began_at)
    if row.due_at:
        view.due_time.FromDatetime(row.due_at)
    return view


def _add_facts(view: Fulfilment, state: facts.Fulfilment) -> None:
    view.rejection, view.suspicion = cut(state.rejection_reason), cut(state.suspicion)
    if state.stock != ClaimState.NONE:
        view.reservation_id = requests.derive_reservation_id(state)
    if state.money != ClaimState.NONE:
        view.hold_id = requests.derive_hold_id(state)
