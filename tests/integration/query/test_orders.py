"""GetOrder, BatchGetOrders and ListOrders on a read model that moves."""

from collections.abc import AsyncIterator

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
from tests.support.harness.read_model import INCARNATION, ORDERS, ReadModel, order, read_model

PLACED, CONFIRMED = Order.STATE_PLACED, Order.STATE_CONFIRMED


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url) as model:
        yield model


async def ask(model: ReadModel, **request: object) -> ListOrdersResponse:
    answer = await ordering.list_orders(model.orders, ListOrdersRequest(**request), None)  # type: ignore[arg-type]
    return ListOrdersResponse.FromString(answer)


async def listed(model: ReadModel, **request: object) -> list[str]:
    return [view.order_id for view in (await ask(model, **request)).orders]


async def all_pages(model: ReadModel, **request: object) -> list[str]:
    found: list[str] = []
    page_token = ""
    while True:
        page = await ask(model, page_token=page_token, **request)
        found += [view.order_id for view in page.orders]
        if not (page_token := page.next_page_token):
            return found


async def test_an_order_is_answered_as_it_is_stored(model: ReadModel) -> None:
    await model.put(order("o-1", version=2))
    answer = await ordering.get_order(model.orders, GetOrderRequest(order_id="o-1"), None)
    assert answer == GetOrderResponse(order=order("o-1", version=2)).SerializeToString()


async def test_an_order_that_is_not_there_is_not_found(model: ReadModel) -> None:
    for token in ("", consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 0})):
        request = GetOrderRequest(order_id="o-1", at_least_as_fresh=token)
        with pytest.raises(RpcError) as error:
            await ordering.get_order(model.orders, request, None)
        assert error.value.reason == "ORDER_NOT_FOUND"
        assert error.value.code == StatusCode.NOT_FOUND
        assert error.value.metadata == {"order_id": "o-1"}


async def test_an_order_is_read_with_its_token(model: ReadModel) -> None:
    await model.put(order("o-1", version=2))
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 2})
    answer = await ordering.get_order(
        model.orders, GetOrderRequest(order_id="o-1", at_least_as_fresh=token), None
    )
    assert GetOrderResponse.FromString(answer).order.version == 2


async def batch(
    model: ReadModel, *order_ids: str, token: str = "", remaining: float | None = None
) -> BatchGetOrdersResponse:
    request = BatchGetOrdersRequest(order_ids=order_ids, at_least_as_fresh=token)
    answer = await ordering.batch_get_orders(model.orders, request, remaining)
    return BatchGetOrdersResponse.FromString(answer)


async def test_several_orders_come_in_the_order_of_the_request(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", version=n) for n in range(1, 5)))
    found = await batch(model, "o-3", "o-9", "o-1", "o-8", "o-4")
    assert list(found.orders) == [order(f"o-{n}", version=n) for n in (3, 1, 4)]
    assert list(found.missing_order_ids) == ["o-9", "o-8"]


async def test_several_orders_are_one_round_trip(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = []
    pipeline = model.reader.pipeline

    async def counted(*commands: tuple[str | bytes | int, ...]) -> list[object]:
        trips.append(len(commands))
        return await pipeline(*commands)

    monkeypatch.setattr(model.reader, "pipeline", counted)
    monkeypatch.setattr(model.reader, "call", None)
    await batch(model, "o-1", "o-2")
    assert trips == [4]


async def test_orders_are_only_missing_while_the_projection_is_complete(model: ReadModel) -> None:
    await model.put(order("o-1"))
    await model.begin_rebuilding()
    assert len((await batch(model, "o-1")).orders) == 1
    with pytest.raises(RpcError) as error:
        await batch(model, "o-1", "o-2")
    assert error.value.reason == "VIEW_REBUILDING"


async def test_several_orders_are_read_with_a_token(model: ReadModel) -> None:
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 2, "ordering.order.o-2": 3})
    await model.put(order("o-1", version=2))
    await model.put(order("o-2", version=2))
    for asked in (("o-1", "o-2"), ("o-1",)):
        with pytest.raises(RpcError) as error:
            await batch(model, *asked, token=token, remaining=0.1)
        assert error.value.reason == "VIEW_BEHIND"
    await model.put(order("o-2", version=3))
    found = await batch(model, "o-2", "o-1", "o-3", token=token)
    assert [(view.order_id, view.version) for view in found.orders] == [("o-2", 3), ("o-1", 2)]
    assert list(found.missing_order_ids) == ["o-3"]


async def test_orders_are_listed_newest_first_by_customer_state_or_both(model: ReadModel) -> None:
    await model.put(
        order("a", customer="c-1", placed=1),
        order("b", customer="c-2", placed=2),
        order("c", customer="c-1", placed=3, state=CONFIRMED),
        order("d", customer="c-1", placed=4),
    )
    assert await listed(model, customer_id="c-1") == ["d", "c", "a"]
    assert await listed(model, state=PLACED) == ["d", "b", "a"]
    assert await listed(model, customer_id="c-1", state=CONFIRMED) == ["c"]
    assert await listed(model, customer_id="c-3") == []


async def test_a_page_holds_twenty_orders_where_the_request_does_not_say(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(25)))
    page = await ask(model, customer_id="c-1")
    assert len(page.orders) == 20
    rest = await ask(model, customer_id="c-1", page_token=page.next_page_token)
    assert [view.order_id for view in rest.orders] == ["o-4", "o-3", "o-2", "o-1", "o-0"]
    assert rest.next_page_token == ""


async def test_a_page_that_ends_with_the_last_order_is_the_last(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(4)))
    page = await ask(model, customer_id="c-1", page_size=4)
    assert len(page.orders) == 4
    assert page.next_page_token == ""


async def test_entries_that_their_views_no_longer_have_are_left_out(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(6)))
    await model.put_alone(order("o-5", placed=5, state=CONFIRMED), order("o-3", placed=3, state=CONFIRMED))
    await model.redis.delete(ORDERS.key("o-2"))
    assert await listed(model, state=PLACED, page_size=2) == ["o-4", "o-1"]
    assert await listed(model, customer_id="c-1") == ["o-5", "o-4", "o-3", "o-1", "o-0"]


async def test_a_page_is_filled_from_further_entries_up_to_a_bound(model: ReadModel) -> None:
    orders = [order(f"o-{n:03}", placed=n) for n in range(200)]
    await model.put(*orders)
    moved = [order(view.order_id, placed=n, state=CONFIRMED) for n, view in enumerate(orders) if n >= 10]
    await model.put_alone(*moved)
    page = await ask(model, state=PLACED, page_size=10)
    assert not page.orders  # the first 50 entries are stale
    assert page.next_page_token
    assert await all_pages(model, state=PLACED, page_size=10) == [f"o-{n:03}" for n in reversed(range(10))]
    assert list_pages.ROUNDS == 5


async def test_a_page_token_of_other_filters_is_refused(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(3)))
    token = (await ask(model, customer_id="c-1", page_size=1)).next_page_token
    for other in ({"customer_id": "c-2"}, {"state": PLACED}, {"customer_id": "c-1", "state": PLACED}):
        with pytest.raises(RpcError) as error:
            await ask(model, page_token=token, **other)
        assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert await listed(model, customer_id="c-1", page_token=token, page_size=50) == ["o-1", "o-0"]


async def test_a_list_waits_for_its_token(model: ReadModel) -> None:
    await model.put(order("o-1"))
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-2": 1})
    request = ListOrdersRequest(customer_id="c-1", at_least_as_fresh=token)
    with pytest.raises(RpcError) as error:
        await ordering.list_orders(model.orders, request, 0.1)
    assert error.value.reason == "VIEW_BEHIND"
    await model.put(order("o-2"))
    assert await listed(model, customer_id="c-1", at_least_as_fresh=token) == ["o-2", "o-1"]


def at(micros: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=micros // 10**6, nanos=micros % 10**6 * 1000 + nanos)


async def test_orders_are_listed_by_when_they_were_placed(model: ReadModel) -> None:
    await model.put(
        order("a", placed=1_000_000),
        order("b", placed=2_000_000, customer="c-2"),
        order("c", placed=3_000_000, state=CONFIRMED),
        order("d", placed=3_000_001),
    )
    assert await listed(model, placed_from=at(2_000_000)) == ["d", "c", "b"]
    assert await listed(model, placed_from=at(2_000_000, 1)) == ["d", "c"]
    assert await listed(model, placed_before=at(3_000_000)) == ["b", "a"]
    assert await listed(model, placed_before=at(3_000_000, 1)) == ["c", "b", "a"]
    assert await listed(model, placed_from=at(2_000_000), placed_before=at(3_000_001)) == ["c", "b"]
    assert await listed(model, placed_from=at(3_000_000), placed_before=at(3_000_000)) == []
    assert await listed(model, placed_from=at(4_000_000), placed_before=at(1_000_000)) == []
    assert await listed(model, placed_from=at(1_000_001), customer_id="c-1") == ["d", "c"]
    assert await listed(model, placed_before=at(3_000_001), state=PLACED) == ["b", "a"]
    both = {"customer_id": "c-1", "state": PLACED}
    assert await listed(model, placed_before=at(3_000_001), **both) == ["a"]


async def test_a_bound_of_no_time_is_1970(model: ReadModel) -> None:
    await model.put(order("a", placed=0), order("b", placed=1))
    assert await listed(model, placed_from=Timestamp()) == ["b", "a"]
    assert await listed(model, placed_before=Timestamp()) == []


@pytest.mark.parametrize("seconds", [-(2**63), -10, 253_402_300_800, 2**63 - 1])
@pytest.mark.parametrize("nanos", [-(2**31), 0, 2**31 - 1])
async def test_absurd_bounds_list_all_or_nothing(model: ReadModel, seconds: int, nanos: int) -> None:
    await model.put(order("a", placed=0), order("b", placed=1_767_323_045_000_000))
    bound = Timestamp(seconds=seconds, nanos=nanos)
    assert await listed(model, placed_from=bound) == ([] if seconds > 0 else ["b", "a"])
    assert await listed(model, placed_before=bound) == (["b", "a"] if seconds > 0 else [])


async def test_pages_stay_within_the_bounds(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(9)))
    bounds = {"placed_from": at(2), "placed_before": at(7)}
    assert await all_pages(model, page_size=2, **bounds) == [f"o-{n}" for n in (6, 5, 4, 3, 2)]


async def test_a_page_token_of_other_bounds_is_refused(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n) for n in range(9)))
    mine = {"customer_id": "c-1", "placed_from": at(2), "placed_before": at(7)}
    token = (await ask(model, page_size=1, **mine)).next_page_token
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
            await ask(model, page_token=token, **(mine | change))
        assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert await listed(model, page_token=token, **mine) == ["o-5", "o-4", "o-3", "o-2"]


TIMES = st.integers(0, 6)  # few, so that many orders share one


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    there=st.lists(TIMES, max_size=12),
    coming=st.lists(st.lists(TIMES, max_size=4), max_size=15),
    sizes=st.lists(st.integers(1, 4), min_size=1),
)
async def test_while_orders_come_in_every_order_of_the_first_page_on_is_seen_once(
    model: ReadModel, there: list[int], coming: list[list[int]], sizes: list[int]
) -> None:
    await model.redis.flushdb()
    await model.complete()
    await model.put(*(order(f"o-{n}", placed=placed) for n, placed in enumerate(there)))
    seen: list[str] = []
    page_token, number = "", 0
    while number == 0 or page_token:
        size = sizes[number % len(sizes)]
        page = await ask(model, customer_id="c-1", page_size=size, page_token=page_token)
        seen += [view.order_id for view in page.orders]
        page_token = page.next_page_token
        new = coming[number] if number < len(coming) else []
        await model.put(*(order(f"new-{number}-{n}", placed=placed) for n, placed in enumerate(new)))
        number += 1
    assert len(seen) == len(set(seen))
    expected = sorted(((placed, f"o-{n}") for n, placed in enumerate(there)), reverse=True)
    assert [each for each in seen if each.startswith("o-")] == [order_id for _, order_id in expected]
