"""What the people of a warehouse do with a stock: take deliveries in, count it, say when it is low."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain import product, stock
from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    DeliveryReceived,
    ReceiveStock,
    ReorderPointSet,
    SetReorderPoint,
    StockAdjusted,
    StockReceived,
)
from command_server.contexts.inventory.domain.product import PRODUCT, product_stream
from command_server.contexts.inventory.domain.stock import STOCK, Stock, stock_stream, with_alert
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members

DELIVERY_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e03")
"""The namespace of deliveries' ids, which are made of all that tells one from another."""

Command = ReceiveStock | AdjustStock | SetReorderPoint


@dataclass(frozen=True, slots=True)
class Delivery:
    """Whether a delivery was counted, and how much it was."""

    quantity: int = 0


def evolve(_: Delivery, event: DeliveryReceived) -> Delivery:
    """Return the delivery after an event."""
    return Delivery(event.quantity)


DELIVERY = Aggregate("inventory.delivery", Delivery(), evolve, (DeliveryReceived,))


def delivery_stream(command: ReceiveStock) -> str:
    """Return the name of a delivery's stream."""
    parts = (command.purchase_order, command.delivery_note, command.sku, command.warehouse_id)
    return DELIVERY.stream(str(uuid5(DELIVERY_IDS, "\n".join(parts))))


def streams(command: Command) -> Sequence[str]:
    """A command is about a stock; a delivery also about its product and about itself."""
    of = stock_stream(command.sku, command.warehouse_id)
    if isinstance(command, ReceiveStock):
        return (of, product_stream(command.sku), delivery_stream(command))
    return (of,)


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Return what happens, or raise Rejected."""
    if isinstance(command, ReceiveStock):
        return receive(command, states, now)
    ((name, of),) = states.items()
    if not of.exists:
        raise NotFound("STOCK_NOT_FOUND", sku=command.sku, warehouse_id=command.warehouse_id)
    match command:
        case AdjustStock():
            return {name: adjust(command, of, now)}
        case SetReorderPoint(sku, warehouse_id, reorder_point):
            if reorder_point == of.reorder_point:
                return {}
            return {
                name: with_alert(of, [ReorderPointSet(sku, warehouse_id, reorder_point, set_at=now)], now)
            }


def receive(command: ReceiveStock, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Count a delivery, once."""
    stock_name, product_name, delivery_name = states
    before, of, delivery = states.values()
    sku, warehouse_id, quantity = command.sku, command.warehouse_id, command.quantity
    product.check_known(of, sku)
    if delivery.quantity == quantity:
        return {}
    if delivery.quantity:
        raise AlreadyExists("DELIVERY_ALREADY_RECEIVED", quantity=delivery.quantity)
    if of.discontinued:
        raise Rejected("PRODUCT_DISCONTINUED", sku=sku)
    stock.check_room(before.on_hand + quantity)
    papers = (command.purchase_order, command.delivery_note)
    received = StockReceived(
        sku, warehouse_id, quantity, *papers, before.on_hand + quantity, before.reserved, received_at=now
    )
    began = product.opened(of, before, warehouse_id, now)
    return {
        stock_name: with_alert(before, [*began, received], now),
        product_name: product.stocked(of, sku, warehouse_id, now),
        delivery_name: [DeliveryReceived(sku, warehouse_id, *papers, quantity, received_at=now)],
    }


def adjust(command: AdjustStock, before: Stock, now: datetime) -> Sequence[stock.Event]:
    """Correct a stock to what was counted; what is reserved must be there."""
    if command.counted == before.on_hand:
        return []
    if command.counted < before.reserved:
        raise Rejected("STOCK_RESERVED", counted=command.counted, reserved=before.reserved)
    difference = command.counted - before.on_hand
    adjusted = StockAdjusted(
        command.sku,
        command.warehouse_id,
        difference,
        command.reason,
        command.counted,
        before.reserved,
        adjusted_at=now,
    )
    return with_alert(before, [adjusted], now)


DECIDER = Decider(members(Command), (STOCK, PRODUCT, DELIVERY), "sku", streams, decide)
