"""The reorder alert of a stock, which changes only when it is raised or cleared.

Its message is `diptych.inventory.v1.ReorderAlert`.
"""

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.ReorderAlert)


def index_entries(alert: views.ReorderAlert) -> list[Entry]:
    """List raised alerts by warehouse and all together. Index `ever` has each alert that was ever raised."""
    if alert.state == views.ReorderAlert.STATE_UNSPECIFIED:
        return []
    member = index_member(alert.raise_time.ToMicroseconds(), alert.stock_id)
    indexes: list[tuple[str, ...]] = [("ever",)]
    if alert.state == views.ReorderAlert.STATE_RAISED:
        indexes += [("raised",), ("raised_warehouse", alert.warehouse_id)]
    return [(VIEW.index(*values), member) for values in indexes]


def change_feeds(alert: views.ReorderAlert) -> list[str]:
    return [] if alert.state == views.ReorderAlert.STATE_UNSPECIFIED else [VIEW.change_feed("ever")]


ALERTS = Projection[views.ReorderAlert](
    VIEW,
    events=EVENTS,
    columns=("sku", "warehouse_id", "state"),
    indexes=index_entries,
    change_feeds=change_feeds,
)


@ALERTS.on(events.StockOpened)
def opened(alert: views.ReorderAlert, event: events.StockOpened) -> None:
    """The state stays unspecified until the alert is raised for the first time."""
    alert.stock_id = event.stock_id
    alert.sku = event.sku
    alert.warehouse_id = event.warehouse_id


@ALERTS.on(events.ReorderAlertRaised)
def raised(alert: views.ReorderAlert, event: events.ReorderAlertRaised) -> None:
    alert.state = views.ReorderAlert.STATE_RAISED
    alert.available = event.available
    alert.reorder_point = event.reorder_point
    alert.raise_time.CopyFrom(event.raised_at)
    alert.purchase_order_id = event.purchase_order_id
    alert.ClearField("clear_time")


@ALERTS.on(events.ReorderAlertCleared)
def cleared(alert: views.ReorderAlert, event: events.ReorderAlertCleared) -> None:
    """The alert keeps the quantity at which it was raised."""
    alert.state = views.ReorderAlert.STATE_CLEARED
    alert.clear_time.CopyFrom(event.cleared_at)
