"""A stock's alert, which changes only when it is raised or cleared: `diptych.inventory.v1.ReorderAlert`."""

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.ReorderAlert)


def entries(alert: views.ReorderAlert) -> list[Entry]:
    """Alerts that stand are listed, by warehouse and all together; each that ever did can be watched."""
    if alert.state == views.ReorderAlert.STATE_UNSPECIFIED:
        return []
    member = index_member(alert.raise_time.ToMicroseconds(), alert.stock_id)
    found: list[tuple[str, ...]] = [("ever",)]
    if alert.state == views.ReorderAlert.STATE_RAISED:
        found += [("raised",), ("raised_warehouse", alert.warehouse_id)]
    return [(VIEW.index(*values), member) for values in found]


def change_feeds(alert: views.ReorderAlert) -> list[str]:
    """Alerts are watched all together."""
    return [] if alert.state == views.ReorderAlert.STATE_UNSPECIFIED else [VIEW.change_feed("ever")]


ALERTS = Projection[views.ReorderAlert](
    VIEW,
    events=[events],
    columns=("sku", "warehouse_id", "state"),
    indexes=entries,
    change_feeds=change_feeds,
)


@ALERTS.on(events.StockOpened)
def opened(alert: views.ReorderAlert, event: events.StockOpened) -> None:
    """There is none yet."""
    alert.stock_id = event.stock_id
    alert.sku = event.sku
    alert.warehouse_id = event.warehouse_id


@ALERTS.on(events.ReorderAlertRaised)
def raised(alert: views.ReorderAlert, event: events.ReorderAlertRaised) -> None:
    """The last crossing is the one that counts."""
    alert.state = views.ReorderAlert.STATE_RAISED
    alert.available = event.available
    alert.reorder_point = event.reorder_point
    alert.raise_time.CopyFrom(event.raised_at)
    alert.ClearField("clear_time")


@ALERTS.on(events.ReorderAlertCleared)
def cleared(alert: views.ReorderAlert, event: events.ReorderAlertCleared) -> None:
    """How little there was stays known."""
    alert.state = views.ReorderAlert.STATE_CLEARED
    alert.clear_time.CopyFrom(event.cleared_at)
