"""Changes of one stock by the staff of its warehouse: deliveries, counts and reorder points.

A delivery has an aggregate of its own, which makes the same delivery count only once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    DeliveryReceived,
    ReceiveStock,
    ReorderPointSet,
    SetReorderPoint,
    StockAdjusted,
    StockReceived,
)
from command_server.contexts.inventory.domain.product import (
    PRODUCT,
    Product,
    add_warehouse,
    check_registered,
    open_stock,
    product_stream,
)
from command_server.contexts.inventory.domain.stock import (
    STOCK,
    Stock,
    check_capacity,
    stock_stream,
    with_alert,
)
from command_server.contexts.inventory.domain.stock import Event as StockEvent
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields

DELIVERY_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e03")
"""UUID namespace of delivery ids. An id is derived from purchase order, delivery note, sku and warehouse."""

Command = ReceiveStock | AdjustStock | SetReorderPoint


@dataclass(frozen=True, slots=True)
class Delivery:
    """The state of a delivery: its counted quantity, 0 before it was received."""

    quantity: int = 0


def evolve(_: Delivery, event: DeliveryReceived) -> Delivery:
    return Delivery(event.quantity)


DELIVERY = Aggregate("inventory.delivery", Delivery(), evolve, (DeliveryReceived,))


def delivery_stream(command: ReceiveStock) -> str:
    """Return the stream of a delivery; different documents never share one."""
    parts = (command.purchase_order, command.delivery_note, command.sku, command.warehouse_id)
    # A line end in a document would let two deliveries have the same name.
    is_ambiguous = any("\n" in part for part in parts)
    name = "\n" + json.dumps(parts) if is_ambiguous else "\n".join(parts)
    return DELIVERY.stream(str(uuid5(DELIVERY_IDS, name)))


def streams(command: Command) -> Sequence[str]:
    """ReceiveStock also changes the product and the delivery."""
    stock = stock_stream(command.sku, command.warehouse_id)
    if isinstance(command, ReceiveStock):
        return (stock, product_stream(command.sku), delivery_stream(command))
    return (stock,)


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    check_fields(command)
    if isinstance(command, ReceiveStock):
        return receive(command, states, now)
    ((name, stock),) = states.items()
    if not stock.exists:
        raise NotFound("STOCK_NOT_FOUND", sku=command.sku, warehouse_id=command.warehouse_id)
    match command:
        case AdjustStock():
            return {name: adjust(command, stock, now)}
        case SetReorderPoint():
            return {name: set_reorder_point(command, stock, now)}


def receive(command: ReceiveStock, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Return the events of a delivery, or none if the same delivery was received before."""
    stock_name, product_name, delivery_name = states
    stock: Stock = states[stock_name]
    product: Product = states[product_name]
    delivery: Delivery = states[delivery_name]
    sku, warehouse_id, quantity = command.sku, command.warehouse_id, command.quantity
    check_registered(product, sku)
    if delivery.quantity == quantity:
        return {}
    if delivery.quantity:
        raise AlreadyExists("DELIVERY_ALREADY_RECEIVED", quantity=delivery.quantity)
    if product.discontinued:
        raise Rejected("PRODUCT_DISCONTINUED", sku=sku)
    on_hand = stock.on_hand + quantity
    check_capacity(on_hand)
    documents = (command.purchase_order, command.delivery_note)
    received = StockReceived(
        sku, warehouse_id, quantity, *documents, on_hand, stock.reserved, received_at=now
    )
    return {
        stock_name: with_alert(stock, [*open_stock(product, stock, warehouse_id, now), received], now),
        product_name: add_warehouse(product, warehouse_id, now),
        delivery_name: [DeliveryReceived(sku, warehouse_id, *documents, quantity, received_at=now)],
    }


def adjust(command: AdjustStock, stock: Stock, now: datetime) -> Sequence[StockEvent]:
    """Return the events of a count, or none if it equals the quantity on hand.

    Raises:
        Rejected: fewer pieces were counted than are reserved.
    """
    if command.counted == stock.on_hand:
        return []
    if command.counted < stock.reserved:
        raise Rejected("STOCK_RESERVED", counted=command.counted, reserved=stock.reserved)
    adjusted = StockAdjusted(
        command.sku,
        command.warehouse_id,
        command.counted - stock.on_hand,
        command.reason,
        command.counted,
        stock.reserved,
        adjusted_at=now,
    )
    return with_alert(stock, [adjusted], now)


def set_reorder_point(command: SetReorderPoint, stock: Stock, now: datetime) -> Sequence[StockEvent]:
    if command.reorder_point == stock.reorder_point:
        return []
    changed = ReorderPointSet(command.sku, command.warehouse_id, command.reorder_point, set_at=now)
    return with_alert(stock, [changed], now)


DECIDER = Decider(members(Command), (STOCK, PRODUCT, DELIVERY), "sku", streams, decide)
