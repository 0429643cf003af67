"""The views of inventory, one file per view."""

from projector.projections.inventory import (
    product,
    purchase_order,
    reorder_alert,
    reservation,
    stock,
    stock_ledger,
)

PROJECTIONS = (
    product.PRODUCTS,
    stock.STOCKS,
    reorder_alert.ALERTS,
    stock_ledger.LEDGERS,
    reservation.RESERVATIONS,
    purchase_order.ORDERS,
)
