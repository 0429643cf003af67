"""The views of ordering, one file per view."""

from projector.projections.ordering import order, order_history

PROJECTIONS = (order.ORDERS, order_history.HISTORIES)
