"""GetOrder, BatchGetOrders and ListOrders on a read model that changes."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import consistency_tokens
from query_server import list_pages
from query_server.contexts import ordering
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import (
    INCARNATION,
    ORDERS,
    ReadModel,
    order,
    record_round_trips,
    respond,
)

PLACED, CONFIRMED = Order.STATE_PLACED, Order.STATE_CONFIRMED


async def get_page(model: ReadModel, **request: object) -> ListOrdersResponse:
    data = await respond(ordering.list_orders, model.orders, ListOrdersRequest(**request))  # type: ignore[arg-type]
    return ListOrdersResponse.FromString(data)


async def list_ids(model: ReadModel, **request: object) -> list[str]:
    return [view.order_id for view in (await get_page(model, **request)).orders]


async def list_all_ids(model: ReadModel, **request: object) -> list[str]:
    ids: list[str] = []
    page_token = ""
    while True:
        page = await get_page(model, page_token=page_token, **request)
        ids += [view.order_id for view in page.orders]
        if not (page_token := page.next_page_token):
            return ids


async def test_an_order_is_returned_as_it_is_stored(model: ReadModel) -> None:
    await model.put(order("o-1", version=2))
    answer = await respond(ordering.get_order, model.orders, GetOrderRequest(order_id="o-1"))
    assert answer == GetOrderResponse(order=order("o-1", version=2)).SerializeToString()


async def test_a_missing_order_is_not_found(model: ReadModel) -> None:
    for token in ("", consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 0})):
        request = GetOrderRequest(order_id="o-1", at_least_as_fresh=token)
        with pytest.raises(RpcError) as error:
            await respond(ordering.get_order, model.orders, request)
        assert error.value.reason == "ORDER_NOT_FOUND"
        assert error.value.code == StatusCode.NOT_FOUND
        assert error.value.metadata == {"order_id": "o-1"}


async def test_an_order_is_read_with_its_token(model: ReadModel) -> None:
    await model.put(order("o-1", version=2))
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 2})
    answer = await respond(
        ordering.get_order, model.orders, GetOrderRequest(order_id="o-1", at_least_as_fresh=token)
    )
    assert GetOrderResponse.FromString(answer).order.version == 2


async def get_batch(
    model: ReadModel, *order_ids: str, token: str = "", remaining: float | None = None
) -> BatchGetOrdersResponse:
    request = BatchGetOrdersRequest(order_ids=order_ids, at_least_as_fresh=token)
    answer = await respond(ordering.batch_get_orders, model.orders, request, remaining)
    return BatchGetOrdersResponse.FromString(answer)


async def test_a_batch_comes_in_the_order_of_the_request(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", version=n) for n in range(1, 5)))
    response = await get_batch(model, "o-3", "o-9", "o-1", "o-8", "o-4")
    assert list(response.orders) == [order(f"o-{n}", version=n) for n in (3, 1, 4)]
    assert list(response.missing_order_ids) == ["o-9", "o-8"]


async def test_a_batch_is_one_round_trip(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = record_round_trips(model, monkeypatch)
    await get_batch(model, "o-1", "o-2")
    assert trips == [4]


async def test_orders_are_only_missing_while_the_projection_is_ready(model: ReadModel) -> None:
    await model.put(order("o-1"))
    await model.mark_rebuilding()
    assert len((await get_batch(model, "o-1")).orders) == 1
    with pytest.raises(RpcError) as error:
        await get_batch(model, "o-1", "o-2")
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_batch_waits_for_its_token(model: ReadModel) -> None:
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 2, "ordering.order.o-2": 3})
    await model.put(order("o-1", version=2))
    await model.put(order("o-2", version=2))
    for order_ids in (("o-1", "o-2"), ("o-1",)):
        with pytest.raises(RpcError) as error:
            await get_batch(model, *order_ids, token=token, remaining=0.1)
        assert error.value.reason == "VIEW_BEHIND"
    await model.put(order("o-2", version=3))
    response = await get_batch(model, "o-2", "o-1", "o-3", token=token)
    assert [(view.order_id, view.version) for view in response.orders] == [("o-2", 3), ("o-1", 2)]
    assert list(response.missing_order_ids) == ["o-3"]


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


async def test_a_page_holds_twenty_orders_by_default(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(25)))
    page = await get_page(model, customer_id="c-1")
    assert len(page.orders) == 20
    last_page = await get_page(model, customer_id="c-1", page_token=page.next_page_token)
    assert [view.order_id for view in last_page.orders] == ["o-4", "o-3", "o-2", "o-1", "o-0"]
    assert last_page.next_page_token == ""


async def test_a_page_that_ends_with_the_last_order_is_the_last(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(4)))
    page = await get_page(model, customer_id="c-1", page_size=4)
    assert len(page.orders) == 4
    assert page.next_page_token == ""


async def test_outdated_index_entries_are_skipped(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(6)))
    await model.put_without_derived(
        order("o-5", placed=5, state=CONFIRMED), order("o-3", placed=3, state=CONFIRMED)
    )
    await model.redis.delete(ORDERS.key("o-2"))
    assert await list_ids(model, state=PLACED, page_size=2) == ["o-4", "o-1"]
    assert await list_ids(model, customer_id="c-1") == ["o-5", "o-4", "o-3", "o-1", "o-0"]


async def test_a_page_is_filled_from_later_entries_up_to_a_limit(model: ReadModel) -> None:
    orders = [order(f"o-{n:03}", placed=n) for n in range(200)]
    await model.put(*orders)
    changed = [order(view.order_id, placed=n, state=CONFIRMED) for n, view in enumerate(orders) if n >= 10]
    await model.put_without_derived(*changed)
    page = await get_page(model, state=PLACED, page_size=10)
    assert not page.orders  # the first 50 entries are stale
    assert page.next_page_token
    assert await list_all_ids(model, state=PLACED, page_size=10) == [f"o-{n:03}" for n in reversed(range(10))]
    assert list_pages.MAX_READS == 5


async def test_a_page_token_of_other_filters_is_refused(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(3)))
    token = (await get_page(model, customer_id="c-1", page_size=1)).next_page_token
    for other in ({"customer_id": "c-2"}, {"state": PLACED}, {"customer_id": "c-1", "state": PLACED}):
        with pytest.raises(RpcError) as error:
            await get_page(model, page_token=token, **other)
        assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert await list_ids(model, customer_id="c-1", page_token=token, page_size=50) == ["o-1", "o-0"]


async def test_a_list_waits_for_its_token(model: ReadModel) -> None:
    await model.put(order("o-1"))
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-2": 1})
    request = ListOrdersRequest(customer_id="c-1", at_least_as_fresh=token)
    with pytest.raises(RpcError) as error:
        await respond(ordering.list_orders, model.orders, request, 0.1)
    assert error.value.reason == "VIEW_BEHIND"
    await model.put(order("o-2"))
    assert await list_ids(model, customer_id="c-1", at_least_as_fresh=token) == ["o-2", "o-1"]


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


async def test_an_empty_bound_is_1970(model: ReadModel) -> None:
    await model.put(order("a", placed=0), order("b", placed=1))
    assert await list_ids(model, placed_from=Timestamp()) == ["b", "a"]
    assert await list_ids(model, placed_before=Timestamp()) == []


@pytest.mark.parametrize("seconds", [-(2**63), -10, 253_402_300_800, 2**63 - 1])
@pytest.mark.parametrize("nanos", [-(2**31), 0, 2**31 - 1])
async def test_bounds_outside_the_calendar_list_all_or_nothing(
    model: ReadModel, seconds: int, nanos: int
) -> None:
    await model.put(order("a", placed=0), order("b", placed=1_767_323_045_000_000))
    bound = Timestamp(seconds=seconds, nanos=nanos)
    assert await list_ids(model, placed_from=bound) == ([] if seconds > 0 else ["b", "a"])
    assert await list_ids(model, placed_before=bound) == (["b", "a"] if seconds > 0 else [])


async def test_pages_stay_within_the_bounds(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(9)))
    bounds = {"placed_from": at(2), "placed_before": at(7)}
    assert await list_all_ids(model, page_size=2, **bounds) == [f"o-{n}" for n in (6, 5, 4, 3, 2)]


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


TIMES = st.integers(0, 6)  # a small range, so that many orders share a time


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    initial=st.lists(TIMES, max_size=12),
    arriving=st.lists(st.lists(TIMES, max_size=4), max_size=15),
    sizes=st.lists(st.integers(1, 4), min_size=1),
)
async def test_pages_list_every_initial_order_once_while_orders_arrive(
    model: ReadModel, initial: list[int], arriving: list[list[int]], sizes: list[int]
) -> None:
    await model.redis.flushdb()
    await model.mark_ready()
    await model.put(*(order(f"o-{n}", placed=placed) for n, placed in enumerate(initial)))
    listed: list[str] = []
    page_token, number = "", 0
    while number == 0 or page_token:
        size = sizes[number % len(sizes)]
        page = await get_page(model, customer_id="c-1", page_size=size, page_token=page_token)
        listed += [view.order_id for view in page.orders]
        page_token = page.next_page_token
        new = arriving[number] if number < len(arriving) else []
        await model.put(*(order(f"new-{number}-{n}", placed=placed) for n, placed in enumerate(new)))
        number += 1
    assert len(listed) == len(set(listed))
    expected = sorted(((placed, f"o-{n}") for n, placed in enumerate(initial)), reverse=True)
    assert [order_id for order_id in listed if order_id.startswith("o-")] == [
        order_id for _, order_id in expected
    ]
