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
    values = ("state", Fulfilment.State.Name(request.state)) if request.state else ("all",)
    window = Window(fulfilments.view.index(*values))
    return (await list_pages.read_page(fulfilments, window, request)).encode()


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
