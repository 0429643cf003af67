"""The view of a product's stock in one warehouse: every field of `diptych.inventory.v1.Stock`."""

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.Stock)
Movement = (
    events.StockReceived
    | events.StockReserved
    | events.StockReleased
    | events.StockCommitted
    | events.StockSent
    | events.StockAdjusted
)


def index_entries(stock: views.Stock) -> list[Entry]:
    """List stocks by sku, by warehouse and all together, sorted by their opening; low ones once more."""
    member = index_member(stock.open_time.ToMicroseconds(), stock.stock_id)
    indexes = [("all",), ("sku", stock.sku), ("warehouse", stock.warehouse_id)]
    if stock.low:
        indexes += [("low",), ("low_warehouse", stock.warehouse_id)]
    return [(VIEW.index(*values), member) for values in indexes]


STOCKS = Projection[views.Stock](
    VIEW,
    events=EVENTS,
    columns=("sku", "warehouse_id", "on_hand", "reserved", "in_transit"),
    indexes=index_entries,
)


@STOCKS.on(events.StockOpened)
def opened(stock: views.Stock, event: events.StockOpened) -> None:
    stock.stock_id = event.stock_id
    stock.sku = event.sku
    stock.warehouse_id = event.warehouse_id
    stock.reorder_point = event.reorder_point
    stock.open_time.CopyFrom(event.opened_at)


def moved(stock: views.Stock, event: Movement | events.StockArrived) -> None:
    """Every movement carries the quantities after it."""
    stock.on_hand = event.on_hand
    stock.reserved = event.reserved
    stock.available = event.on_hand - event.reserved


for movement in Movement.__args__:
    STOCKS.on(movement)(moved)


@STOCKS.on(events.StockExpected)
def expected(stock: views.Stock, event: events.StockExpected) -> None:
    stock.in_transit = event.in_transit


@STOCKS.on(events.StockArrived)
def arrived(stock: views.Stock, event: events.StockArrived) -> None:
    stock.in_transit = event.in_transit
    moved(stock, event)


@STOCKS.on(events.ReorderPointSet)
def reorder_point_set(stock: views.Stock, event: events.ReorderPointSet) -> None:
    stock.reorder_point = event.reorder_point


@STOCKS.on(events.ReorderTermsSet)
def reorder_terms_set(stock: views.Stock, event: events.ReorderTermsSet) -> None:
    stock.ClearField("reorder_terms")
    if event.HasField("terms"):
        stock.reorder_terms.CopyFrom(event.terms)


@STOCKS.on(events.ReorderAlertRaised)
def alert_raised(stock: views.Stock, _: events.ReorderAlertRaised) -> None:
    stock.low = True


@STOCKS.on(events.ReorderAlertCleared)
def alert_cleared(stock: views.Stock, _: events.ReorderAlertCleared) -> None:
    stock.low = False
