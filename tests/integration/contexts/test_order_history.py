"""GetOrderHistory: the entries of an order's history."""

from typing import Any

import pytest
from diptych.ordering.v1.events_pb2 import OrderHeld
from diptych.ordering.v1.query_service_pb2 import GetOrderHistoryRequest, GetOrderHistoryResponse
from diptych.ordering.v1.types_pb2 import OrderHistoryEntry
from grpc import StatusCode

from query_server.contexts import ordering
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import ReadModel, respond


def make_entry(version: int) -> OrderHistoryEntry:
    entry = OrderHistoryEntry(version=version, event_type=OrderHeld.DESCRIPTOR.full_name, actor="ada")
    entry.event.Pack(OrderHeld(order_id="o-1", reason=f"{version}"))
    return entry


async def get_history(model: ReadModel, **fields: Any) -> GetOrderHistoryResponse:
    request = GetOrderHistoryRequest(order_id="o-1", **fields)
    data = await respond(ordering.get_order_history, model.histories, request)
    return GetOrderHistoryResponse.FromString(data)


async def test_entries_are_returned_newest_first_page_by_page(model: ReadModel) -> None:
    await model.put_history("o-1", *map(make_entry, (1, 2, 3)))
    page = await get_history(model, page_size=2)
    assert list(page.entries) == [make_entry(3), make_entry(2)]
    assert list((await get_history(model, page_token=page.next_page_token)).entries) == [make_entry(1)]


async def test_a_missing_order_has_no_history(model: ReadModel) -> None:
    with pytest.raises(RpcError) as error:
        await get_history(model)
    assert (error.value.reason, error.value.code) == ("ORDER_NOT_FOUND", StatusCode.NOT_FOUND)
    assert error.value.metadata == {"order_id": "o-1"}
