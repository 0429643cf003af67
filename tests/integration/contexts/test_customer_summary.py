"""GetCustomerSummary: the counters of a customer's orders as a response."""

import pytest
from diptych.ordering.v1.query_service_pb2 import GetCustomerSummaryRequest, GetCustomerSummaryResponse
from diptych.ordering.v1.types_pb2 import CustomerSummary, Order
from google.type.money_pb2 import Money
from grpc import StatusCode

from query_server.contexts import ordering
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.order_views import ORDERS, order
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, record_round_trips, respond

PLACED, CONFIRMED, HELD = Order.STATE_PLACED, Order.STATE_CONFIRMED, Order.STATE_HELD


async def get_summary(
    model: ReadModel, customer: str = "c-1", token: str = "", remaining: float | None = None
) -> CustomerSummary:
    request = GetCustomerSummaryRequest(customer_id=customer, at_least_as_fresh=token)
    answer = await respond(ordering.get_customer_summary, model.views, request, remaining)
    return GetCustomerSummaryResponse.FromString(answer).summary


def money(units: int, nanos: int = 0, currency: str = "EUR") -> Money:
    return Money(currency_code=currency, units=units, nanos=nanos)


def state_summary(state: Order.State.ValueType, count: int, *totals: Money) -> CustomerSummary.StateSummary:
    return CustomerSummary.StateSummary(state=state, order_count=count, totals=totals)


async def test_a_customer_without_orders_has_an_empty_summary(model: ReadModel) -> None:
    assert await get_summary(model) == CustomerSummary(customer_id="c-1")


async def test_an_order_counts_for_its_own_customer_alone(model: ReadModel) -> None:
    await model.put(order("o-1", total=money(12, 340_000_000)))
    assert await get_summary(model) == CustomerSummary(
        customer_id="c-1", states=[state_summary(PLACED, 1, money(12, 340_000_000))]
    )
    assert await get_summary(model, "c-2") == CustomerSummary(customer_id="c-2")


async def test_states_are_sorted_by_number_and_currencies_by_code(model: ReadModel) -> None:
    await model.put(
        order("o-1", state=HELD, total=money(1)),
        order("o-2", state=CONFIRMED, total=money(2, 0, "USD")),
        order("o-3", state=CONFIRMED, total=money(3, 0, "CHF")),
        order("o-4", total=money(4)),
        order("o-5", state=CONFIRMED, total=money(5, 0, "USD")),
    )
    assert list((await get_summary(model)).states) == [
        state_summary(PLACED, 1, money(4)),
        state_summary(CONFIRMED, 3, money(3, 0, "CHF"), money(7, 0, "USD")),
        state_summary(HELD, 1, money(1)),
    ]


async def test_nanos_are_carried_to_units(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", total=money(1, 990_000_000)) for n in range(5)))
    assert list((await get_summary(model)).states) == [state_summary(PLACED, 5, money(9, 950_000_000))]
    await model.redis.delete(ORDERS.counters("customer", "c-1"))
    await model.redis.hset(
        ORDERS.counters("customer", "c-1"),
        mapping={"orders/STATE_PLACED": "4", "nanos/STATE_PLACED/EUR": "2000000000"},
    )
    assert list((await get_summary(model)).states) == [state_summary(PLACED, 4, money(2))]


async def test_an_order_without_cost_is_counted_and_has_no_total(model: ReadModel) -> None:
    await model.put(order("o-1", total=money(0)))
    assert list((await get_summary(model)).states) == [state_summary(PLACED, 1)]


async def test_a_state_of_newer_code_is_refused_with_view_newer(model: ReadModel) -> None:
    await model.put(order("o-1", total=money(1)))
    await model.redis.hincrby(ORDERS.counters("customer", "c-1"), "orders/STATE_MISLAID", 1)
    with pytest.raises(RpcError) as error:
        await get_summary(model)
    assert (error.value.reason, error.value.code) == ("VIEW_NEWER", StatusCode.UNAVAILABLE)


async def test_a_summary_is_refused_during_a_rebuild(model: ReadModel) -> None:
    await model.put(order("o-1", total=money(1)))
    await model.mark_rebuilding()
    for token in ("", mint_token(INCARNATION, {"ordering.order.o-1": 1})):
        with pytest.raises(RpcError) as error:
            await get_summary(model, token=token)
        assert error.value.reason == "VIEW_REBUILDING"


async def test_a_summary_waits_for_its_token(model: ReadModel) -> None:
    token = mint_token(INCARNATION, {"ordering.order.o-1": 2})
    await model.put(order("o-1", total=money(1)))
    with pytest.raises(RpcError) as error:
        await get_summary(model, token=token, remaining=0.1)
    assert error.value.reason == "VIEW_BEHIND"
    await model.put(order("o-1", version=2, state=HELD, total=money(1)))
    assert list((await get_summary(model, token=token)).states) == [state_summary(HELD, 1, money(1))]


async def test_a_summary_is_one_round_trip(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = record_round_trips(model, monkeypatch)
    await get_summary(model)
    assert trips == [3]  # the caught-up marker, the counters, the marker again
