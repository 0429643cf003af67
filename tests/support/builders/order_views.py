"""Orders as the projector stores them; their counters are written by hand."""

from collections.abc import Sequence

from diptych.ordering.v1.types_pb2 import Order, OrderHistory, OrderLine
from google.type.money_pb2 import Money

from contracts.view_layout import View
from projector.projections.ordering.order import index_entries
from tests.support.harness.read_model import Contribution, Projections

ORDERS, HISTORIES = View.of(Order), View.of(OrderHistory)


def order(
    order_id: str,
    *,
    customer: str = "c-1",
    state: Order.State.ValueType = Order.STATE_PLACED,
    version: int = 1,
    placed: int = 0,
    total: Money | None = None,
    skus: Sequence[str] = (),
) -> Order:
    """Return an order; `placed` is in microseconds since 1970."""
    view = Order(order_id=order_id, version=version, state=state, customer_id=customer, total=total)
    view.place_time.FromMicroseconds(placed)
    if skus:
        view.shipping_groups.add(lines=[OrderLine(sku=sku, title=f"{sku} as ordered") for sku in skus])
    return view


def contributions(view: Order) -> list[Contribution]:
    """Return an order's contributions to its customer's counters."""
    state, currency = Order.State.Name(view.state), view.total.currency_code
    counters = {
        f"orders/{state}": 1,
        f"units/{state}/{currency}": view.total.units,
        f"nanos/{state}/{currency}": view.total.nanos,
    }
    key = ORDERS.counters("customer", view.customer_id)
    return [(key, counter, str(amount)) for counter, amount in counters.items() if amount]


ORDER_PROJECTIONS = Projections(ORDERS, HISTORIES, "order_id", index_entries, contributions)
