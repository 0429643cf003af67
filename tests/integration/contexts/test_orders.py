"""GetOrder, BatchGetOrders and ListOrders: the views and indexes that they read."""

import pytest
from diptych.ordering.v1.query_service_pb2 import (
    BatchGetOrdersRequest,
    BatchGetOrdersResponse,
    GetOrderRequest,
    GetOrderResponse,
    ListOrdersRequest,
    ListOrdersResponse,
)
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from query_server.contexts import ordering
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.order_views import order
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, respond

PLACED, CONFIRMED = Order.STATE_PLACED, Order.STATE_CONFIRMED


async def get_page(model: ReadModel, **request: object) -> ListOrdersResponse:
    data = await respond(ordering.list_orders, model.views, ListOrdersRequest(**request))  # type: ignore[arg-type]
    return ListOrdersResponse.FromString(data)


async def list_ids(model: ReadModel, **request: object) -> list[str]:
    return [view.order_id for view in (await get_page(model, **request)).orders]


async def test_an_order_is_returned_as_it_is_stored(model: ReadModel) -> None:
    await model.put(order("o-1", version=2))
    answer = await respond(ordering.get_order, model.views, GetOrderRequest(order_id="o-1"))
    assert answer == GetOrderResponse(order=order("o-1", version=2)).SerializeToString()


async def test_a_missing_order_is_not_found(model: ReadModel) -> None:
    for token in ("", mint_token(INCARNATION, {"ordering.order.o-1": 0})):
        request = GetOrderRequest(order_id="o-1", at_least_as_fresh=token)
        with pytest.raises(RpcError) as error:
            await respond(ordering.get_order, model.views, request)
        assert error.value.reason == "ORDER_NOT_FOUND"
        assert error.value.code == StatusCode.NOT_FOUND
        assert error.value.metadata == {"order_id": "o-1"}


async def get_batch(model: ReadModel, *order_ids: str) -> BatchGetOrdersResponse:
    request = BatchGetOrdersRequest(order_ids=order_ids)
    answer = await respond(ordering.batch_get_orders, model.views, request)
    return BatchGetOrdersResponse.FromString(answer)


async def test_a_batch_comes_in_the_order_of_the_request(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", version=n) for n in range(1, 5)))
    response = await get_batch(model, "o-3", "o-9", "o-1", "o-8", "o-4")
    assert list(response.orders) == [order(f"o-{n}", version=n) for n in (3, 1, 4)]
    assert list(response.missing_order_ids) == ["o-9", "o-8"]


async def test_orders_are_listed_newest_first_by_customer_state_or_both(model: ReadModel) -> None:
    await model.put(
        order("a", customer="c-1", placed=1),
        order("b", customer="c-2", placed=2),
        order("c", customer="c-1", placed=3, state=CONFIRMED),
        order("d", customer="c-1", placed=4),
    )
    assert await list_ids(model, customer_id="c-1") == ["d", "c", "a"]
    assert await list_ids(model, state=PLACED) == ["d", "b", "a"]
    assert await list_ids(model, customer_id="c-1", state=CONFIRMED) == ["c"]
    assert await list_ids(model, customer_id="c-3") == []


def at(micros: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=micros // 10**6, nanos=micros % 10**6 * 1000 + nanos)


async def test_orders_are_listed_by_the_time_of_placing(model: ReadModel) -> None:
    await model.put(
        order("a", placed=1_000_000),
        order("b", placed=2_000_000, customer="c-2"),
        order("c", placed=3_000_000, state=CONFIRMED),
        order("d", placed=3_000_001),
    )
    assert await list_ids(model, placed_from=at(2_000_000)) == ["d", "c", "b"]
    assert await list_ids(model, placed_from=at(2_000_000, 1)) == ["d", "c"]
    assert await list_ids(model, placed_before=at(3_000_000)) == ["b", "a"]
    assert await list_ids(model, placed_before=at(3_000_000, 1)) == ["c", "b", "a"]
    assert await list_ids(model, placed_from=at(2_000_000), placed_before=at(3_000_001)) == ["c", "b"]
    assert await list_ids(model, placed_from=at(3_000_000), placed_before=at(3_000_000)) == []
    assert await list_ids(model, placed_from=at(4_000_000), placed_before=at(1_000_000)) == []
    assert await list_ids(model, placed_from=at(1_000_001), customer_id="c-1") == ["d", "c"]
    assert await list_ids(model, placed_before=at(3_000_001), state=PLACED) == ["b", "a"]
    both = {"customer_id": "c-1", "state": PLACED}
    assert await list_ids(model, placed_before=at(3_000_001), **both) == ["a"]


async def test_a_page_token_of_other_bounds_is_refused(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(9)))
    filters = {"customer_id": "c-1", "placed_from": at(2), "placed_before": at(7)}
    token = (await get_page(model, page_size=1, **filters)).next_page_token
    for change in (
        {"placed_from": at(3)},
        {"placed_before": at(8)},
        {"placed_from": None},
        {"placed_before": None},
        {"placed_from": at(7), "placed_before": at(2)},
        {"customer_id": ""},
        {"state": PLACED},
    ):
        with pytest.raises(RpcError) as error:
            await get_page(model, page_token=token, **(filters | change))
        assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert await list_ids(model, page_token=token, **filters) == ["o-5", "o-4", "o-3", "o-2"]
