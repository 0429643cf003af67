"""Changes of one stock by the staff of its warehouse: deliveries, counts, reorder points and terms.

A delivery has an aggregate of its own, which makes the same delivery count only once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    DeliveryReceived,
    ReceiveStock,
    ReorderPointSet,
    ReorderTermsSet,
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
from command_server.contexts.inventory.domain.purchase_messages import PurchaseLine, SetReorderTerms
from command_server.contexts.inventory.domain.purchase_total import sum_lines
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
"""UUID namespace of the ids of deliveries without a purchase order. An id is derived from reason, note, sku
and warehouse."""

Command = ReceiveStock | AdjustStock | SetReorderPoint | SetReorderTerms


@dataclass(frozen=True, slots=True)
class Delivery:
    """The state of a delivery: its counted quantity, 0 before it was received."""

    quantity: int = 0


def evolve(_: Delivery, event: DeliveryReceived) -> Delivery:
    return Delivery(event.quantity)


DELIVERY = Aggregate("inventory.delivery", Delivery(), evolve, (DeliveryReceived,))


class DeliveryStreams(NamedTuple):
    """The streams that a delivery changes."""

    stock: str
    product: str
    delivery: str


def delivery_streams(command: ReceiveStock) -> DeliveryStreams:
    """Return the streams of a receipt. Different documents never share a delivery.

    The reason stands in the id where earlier releases had the caller's text, which was "return" for returned
    goods: what they counted is not counted again.
    """
    parts = (command.reason.name.lower(), command.delivery_note, command.sku, command.warehouse_id)
    # A line end in a document would let two deliveries have the same name.
    is_ambiguous = any("\n" in part for part in parts)
    name = "\n" + json.dumps(parts) if is_ambiguous else "\n".join(parts)
    delivery = DELIVERY.stream(str(uuid5(DELIVERY_IDS, name)))
    return DeliveryStreams(
        stock_stream(command.sku, command.warehouse_id), product_stream(command.sku), delivery
    )


def streams(command: Command) -> Sequence[str]:
    """ReceiveStock also changes the product and the delivery."""
    if isinstance(command, ReceiveStock):
        return delivery_streams(command)
    return (stock_stream(command.sku, command.warehouse_id),)


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
        case SetReorderTerms():
            return {name: set_reorder_terms(command, stock, now)}


def receive(command: ReceiveStock, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Return the events of a delivery, or none if the same delivery was received before."""
    names = delivery_streams(command)
    check_registered(states[names.product], command.sku)
    if is_counted(states[names.delivery], command.quantity):
        return {}
    fields = (command.sku, command.warehouse_id, "", command.delivery_note, command.quantity)
    return take_delivery(DeliveryReceived(*fields, now, command.reason), names, states)


def is_counted(delivery: Delivery, quantity: int) -> bool:
    """Return whether a delivery was counted before.

    Raises:
        AlreadyExists: it was, with another quantity.
    """
    if delivery.quantity not in (0, quantity):
        raise AlreadyExists("DELIVERY_ALREADY_RECEIVED", quantity=delivery.quantity)
    return bool(delivery.quantity)


def take_delivery(
    delivery: DeliveryReceived, names: DeliveryStreams, states: Mapping[str, Any]
) -> Mapping[str, Sequence[Any]]:
    """Return the events by stream of a delivery that was not counted before.

    Raises:
        NotFound: the product is not registered.
        Rejected: the product is discontinued or has too many warehouses, or the stock gets too large.
    """
    stock: Stock = states[names.stock]
    product: Product = states[names.product]
    sku, warehouse_id, now = delivery.sku, delivery.warehouse_id, delivery.received_at
    check_registered(product, sku)
    if product.discontinued:
        raise Rejected("PRODUCT_DISCONTINUED", sku=sku)
    on_hand = stock.on_hand + delivery.quantity
    check_capacity(on_hand)
    received = StockReceived(
        sku,
        warehouse_id,
        delivery.quantity,
        delivery.purchase_order,
        delivery.delivery_note,
        on_hand,
        stock.reserved,
        now,
        delivery.reason,
    )
    return {
        names.stock: with_alert(stock, [*open_stock(product, stock, warehouse_id, now), received], now),
        names.product: add_warehouse(product, warehouse_id, now),
        names.delivery: [delivery],
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


def set_reorder_terms(command: SetReorderTerms, stock: Stock, now: datetime) -> Sequence[StockEvent]:
    """Return the event of new terms, or none if the stock has them already.

    Raises:
        Rejected: the total of such an order would be too large.
    """
    if command.terms == stock.terms:
        return []
    if (terms := command.terms) is not None:
        sum_lines([PurchaseLine(command.sku, terms.quantity, terms.unit_price)])
    set_by = tuple(sorted(command.persons))
    return [ReorderTermsSet(command.sku, command.warehouse_id, command.terms, now, set_by)]


DECIDER = Decider(members(Command), (STOCK, PRODUCT, DELIVERY), "sku", streams, decide)
