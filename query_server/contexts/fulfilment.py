"""Queries of fulfilment: the progress of an order's fulfilment."""

from diptych.fulfilment.v1 import query_service_pb2 as protocol
from diptych.fulfilment.v1.types_pb2 import Fulfilment

from contracts.view_layout import View
from query_server import list_pages, watches
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view

FULFILMENTS = View.of(Fulfilment)
FULFILMENT_NOT_FOUND = NotFound("fulfilment", "FULFILMENT_NOT_FOUND", ("order_id",))


async def get_fulfilment(fulfilments: FreshReader, request: protocol.GetFulfilmentRequest) -> bytes:
    return encode_view(await fulfilments.get(request.order_id, FULFILMENT_NOT_FOUND))


async def list_fulfilments(fulfilments: FreshReader, request: protocol.ListFulfilmentsRequest) -> bytes:
    window = Window(_select_index(fulfilments.view, request.customer_id, request.state))
    return (await list_pages.read_page(fulfilments, window, request)).encode()


def _select_index(view: View, customer_id: str, state: Fulfilment.State.ValueType) -> str:
    match customer_id, state:
        case "", Fulfilment.STATE_UNSPECIFIED:
            return view.index("all")
        case _, Fulfilment.STATE_UNSPECIFIED:
            return view.index("customer", customer_id)
        case "", _:
            return view.index("state", Fulfilment.State.Name(state))
        case _:
            return view.index("customer_state", customer_id, Fulfilment.State.Name(state))


def watch_fulfilment(watch: Watch, request: protocol.WatchFulfilmentRequest) -> WatchResponses:
    return watches.watch_view(watch, request.order_id, FULFILMENT_NOT_FOUND)


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetFulfilment": Query(FULFILMENTS, get_fulfilment),
        "ListFulfilments": Query(FULFILMENTS, list_fulfilments),
    },
    {"WatchFulfilment": WatchQuery(FULFILMENTS, watch_fulfilment)},
)
