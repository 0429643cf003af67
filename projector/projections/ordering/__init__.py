"""The views of ordering, a file for each."""

from projector.projections.ordering import order, order_history

PROJECTIONS = (order.ORDERS, order_history.HISTORIES)
