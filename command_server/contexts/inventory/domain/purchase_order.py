"""The purchase order aggregate: raised, approved above a sum, sent, received in parts, closed or cancelled.

A delivery changes the order, the stock of each of its lines and the deliveries that make it count once, in
one command. A line may be delivered short, in parts, or with up to a tenth more than was ordered.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain.messages import DeliveryReceived, ReceiptReason
from command_server.contexts.inventory.domain.product import (
    PRODUCT,
    Product,
    check_registered,
    product_stream,
)
from command_server.contexts.inventory.domain.purchase_messages import (
    ApprovePurchaseOrder,
    CancelPurchaseOrder,
    ClosePurchaseOrder,
    DeliveredLine,
    GoodsReceived,
    PurchaseLine,
    PurchaseOrderApproved,
    PurchaseOrderCancelled,
    PurchaseOrderClosed,
    PurchaseOrderRaised,
    PurchaseOrderSent,
    RaisePurchaseOrder,
    ReceiveGoods,
    SendToSupplier,
)
from command_server.contexts.inventory.domain.purchase_total import sum_lines
from command_server.contexts.inventory.domain.stock import STOCK, stock_stream
from command_server.contexts.inventory.domain.stockkeeping import (
    DELIVERY,
    DeliveryStreams,
    is_counted,
    take_delivery,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money
from command_server.kernel.persons import list_persons, share_person
from command_server.kernel.texts import check_text

APPROVAL_THRESHOLD = 10_000
"""Largest total, in whole units of any currency, that needs no approval by a second person."""
TOLERANCE = 10
"""A delivery may exceed what was ordered by one piece in this many."""
PURCHASE_DELIVERY_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e04")
"""UUID namespace of the ids of deliveries of purchase orders."""

Command = (
    RaisePurchaseOrder
    | ApprovePurchaseOrder
    | SendToSupplier
    | ReceiveGoods
    | ClosePurchaseOrder
    | CancelPurchaseOrder
)
Event = (
    PurchaseOrderRaised
    | PurchaseOrderApproved
    | PurchaseOrderSent
    | GoodsReceived
    | PurchaseOrderClosed
    | PurchaseOrderCancelled
)
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a purchase order; NONE before it is raised, RECEIVED once all of it has arrived."""

    NONE = "NONE"
    RAISED = "RAISED"
    APPROVED = "APPROVED"
    SENT = "SENT"
    RECEIVED = "RECEIVED"
    CLOSED = "CLOSED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class PurchaseOrder:
    """The state of a purchase order, as far as the rules need it."""

    status: Status = Status.NONE
    supplier_id: str = ""
    warehouse_id: str = ""
    lines: tuple[PurchaseLine, ...] = ()
    received: tuple[int, ...] = ()
    """The number of pieces that have arrived of each line."""
    raisers: tuple[str, ...] = ()
    """The caller who raised it, the person on whose behalf, and who asked for it."""
    expected_on: str = ""


def evolve(order: PurchaseOrder, event: Event) -> PurchaseOrder:
    match event:
        case PurchaseOrderRaised(_, supplier_id, warehouse_id, lines):
            status = Status.RAISED if event.needs_approval else Status.APPROVED
            raisers = event.raisers or (event.raised_by,)
            return PurchaseOrder(status, supplier_id, warehouse_id, lines, (0,) * len(lines), raisers)
        case PurchaseOrderApproved():
            return replace(order, status=Status.APPROVED)
        case PurchaseOrderSent(_, expected_on):
            return replace(order, status=Status.SENT, expected_on=expected_on)
        case GoodsReceived():
            status = Status.RECEIVED if event.complete else order.status
            return replace(order, status=status, received=add_lines(order, event.lines))
        case PurchaseOrderClosed():
            return replace(order, status=Status.CLOSED)
        case PurchaseOrderCancelled():
            return replace(order, status=Status.CANCELLED)


PURCHASE_ORDER = Aggregate("inventory.purchase_order", PurchaseOrder(), evolve, members(Event))


def add_lines(order: PurchaseOrder, delivered: Sequence[DeliveredLine]) -> tuple[int, ...]:
    """Return the number of pieces of each line of the order that have arrived after a delivery."""
    counts = {line.sku: line.quantity for line in delivered}
    pairs = zip(order.lines, order.received, strict=True)
    return tuple(received + counts.get(line.sku, 0) for line, received in pairs)


def streams(command: Command) -> Sequence[str]:
    """RaisePurchaseOrder also reads the products of its lines."""
    skus = [line.sku for line in command.lines] if isinstance(command, RaisePurchaseOrder) else []
    return (PURCHASE_ORDER.stream(command.purchase_order_id), *map(product_stream, dict.fromkeys(skus)))


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """ReceiveGoods also changes the stock of its lines, in the warehouse that the order's state names."""
    order: PurchaseOrder = states[PURCHASE_ORDER.stream(command.purchase_order_id)]
    if not isinstance(command, ReceiveGoods) or order.status is Status.NONE:
        return ()
    names = [name for line in command.lines for name in delivery_streams(command, line, order.warehouse_id)]
    return list(dict.fromkeys(names))


def delivery_streams(command: ReceiveGoods, line: DeliveredLine, warehouse_id: str) -> DeliveryStreams:
    document = json.dumps((command.purchase_order_id, command.delivery_note, line.sku))
    delivery_id = str(uuid5(PURCHASE_DELIVERY_IDS, document))
    return DeliveryStreams(
        stock_stream(line.sku, warehouse_id), product_stream(line.sku), DELIVERY.stream(delivery_id)
    )


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.purchase_order_id
    name = PURCHASE_ORDER.stream(id_)
    order: PurchaseOrder = states[name]
    match command, order.status:
        case RaisePurchaseOrder(), Status.NONE:
            return {name: [raise_order(command, states, now)]}
        case RaisePurchaseOrder(_, supplier_id, warehouse_id, lines), _:
            if (supplier_id, warehouse_id, lines) == (order.supplier_id, order.warehouse_id, order.lines):
                return {}
            raise AlreadyExists("PURCHASE_ORDER_EXISTS", purchase_order_id=id_)
        case _, Status.NONE:
            raise NotFound("PURCHASE_ORDER_NOT_FOUND", purchase_order_id=id_)
        case ApprovePurchaseOrder(_, caller, persons), Status.RAISED:
            if share_person(caller, persons, order.raisers):
                raise Rejected("PURCHASE_ORDER_SAME_CALLER", purchase_order_id=id_)
            return {name: [PurchaseOrderApproved(id_, caller, approved_at=now)]}
        case SendToSupplier(_, expected_on), Status.APPROVED:
            check_day(expected_on, now)
            return {name: [PurchaseOrderSent(id_, expected_on, sent_at=now)]}
        case SendToSupplier(_, expected_on), Status.SENT if expected_on == order.expected_on:
            return {}
        case SendToSupplier(), Status.RAISED:
            raise Rejected("PURCHASE_ORDER_NOT_APPROVED", purchase_order_id=id_)
        case ReceiveGoods(), _:
            return receive(command, order, states, now)
        case ClosePurchaseOrder(_, reason), Status.SENT | Status.RECEIVED:
            check_text("reason", reason)
            if not any(order.received):
                raise Rejected("PURCHASE_ORDER_NOTHING_RECEIVED", purchase_order_id=id_)
            return {name: [PurchaseOrderClosed(id_, reason, closed_at=now)]}
        case ClosePurchaseOrder(), Status.RAISED | Status.APPROVED:
            raise Rejected("PURCHASE_ORDER_NOT_SENT", purchase_order_id=id_)
        case CancelPurchaseOrder(_, reason), Status.RAISED | Status.APPROVED | Status.SENT:
            check_text("reason", reason)
            if any(order.received):
                raise Rejected("PURCHASE_ORDER_PARTLY_RECEIVED", purchase_order_id=id_)
            return {name: [PurchaseOrderCancelled(id_, reason, cancelled_at=now)]}
        case ApprovePurchaseOrder(), status if status is not Status.CANCELLED:
            return {}
        case (ClosePurchaseOrder(), Status.CLOSED) | (CancelPurchaseOrder(), Status.CANCELLED):
            return {}
    raise Rejected(f"PURCHASE_ORDER_ALREADY_{order.status.name}", purchase_order_id=id_)


def raise_order(command: RaisePurchaseOrder, states: Mapping[str, Any], now: datetime) -> PurchaseOrderRaised:
    """Return the event of a new order.

    Raises:
        NotFound: a product is not registered.
        Rejected: the lines do not fit together, or a product is discontinued.
    """
    check_unique(command.lines)
    total = sum_lines(command.lines)
    for line in command.lines:
        product: Product = states[product_stream(line.sku)]
        check_registered(product, line.sku)
        if product.discontinued:
            raise Rejected("PRODUCT_DISCONTINUED", sku=line.sku)
    return PurchaseOrderRaised(
        command.purchase_order_id,
        command.supplier_id,
        command.warehouse_id,
        command.lines,
        total,
        needs_approval=Money(total.currency_code, APPROVAL_THRESHOLD) < total,
        raised_by=command.caller,
        raised_at=now,
        raisers=list_persons(command.caller, command.persons, command.requested_by),
    )


def receive(
    command: ReceiveGoods, order: PurchaseOrder, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the events of a delivery by stream, or none if all of its lines were counted before.

    Raises:
        NotFound: the order has no such line.
        Rejected: the order accepts no goods, a line has too many pieces, or a stock cannot take them.
    """
    check_unique(command.lines)
    id_, warehouse_id = command.purchase_order_id, order.warehouse_id
    names = {line: delivery_streams(command, line, warehouse_id) for line in command.lines}
    lines = tuple(
        line for line in command.lines if not is_counted(states[names[line].delivery], line.quantity)
    )
    if not lines:
        return {}
    if order.status in (Status.RAISED, Status.APPROVED):
        raise Rejected("PURCHASE_ORDER_NOT_SENT", purchase_order_id=id_)
    if order.status in (Status.CLOSED, Status.CANCELLED):
        raise Rejected(f"PURCHASE_ORDER_ALREADY_{order.status.name}", purchase_order_id=id_)
    check_text("delivery_note", command.delivery_note)
    check_ordered(order, lines)
    received = add_lines(order, lines)
    complete = all(count >= line.quantity for line, count in zip(order.lines, received, strict=True))
    goods = GoodsReceived(id_, command.delivery_note, lines, complete, received_at=now)
    events: dict[str, Sequence[Any]] = {PURCHASE_ORDER.stream(id_): [goods]}
    for line in lines:
        delivery = DeliveryReceived(
            line.sku, warehouse_id, id_, command.delivery_note, line.quantity, now, ReceiptReason.PURCHASE
        )
        events |= take_delivery(delivery, names[line], states)
    return events


def check_ordered(order: PurchaseOrder, delivered: Sequence[DeliveredLine]) -> None:
    """Raise NotFound for a sku that was not ordered, or Rejected for more pieces than the order accepts."""
    if unknown := {line.sku for line in delivered} - {line.sku for line in order.lines}:
        raise NotFound("PURCHASE_ORDER_LINE_NOT_FOUND", sku=min(unknown))
    for line, received in zip(order.lines, add_lines(order, delivered), strict=True):
        most = line.quantity + line.quantity // TOLERANCE
        if received > most:
            raise Rejected("PURCHASE_ORDER_OVERDELIVERED", sku=line.sku, received=received, most=most)


def check_unique(lines: Sequence[PurchaseLine | DeliveredLine]) -> None:
    """Raise Rejected if two lines are of the same sku."""
    skus: set[str] = set()
    for line in lines:
        if line.sku in skus:
            raise Rejected("PURCHASE_ORDER_LINE_REPEATED", sku=line.sku)
        skus.add(line.sku)


def check_day(expected_on: str, now: datetime) -> None:
    """Raise Rejected if a day is no day of its year, or over in UTC."""
    try:
        date.fromisoformat(expected_on)
    except ValueError:
        raise Rejected("PURCHASE_ORDER_DAY_INVALID", expected_on=expected_on) from None
    if expected_on < (today := now.astimezone(UTC).date().isoformat()):
        raise Rejected("PURCHASE_ORDER_DAY_PAST", expected_on=expected_on, today=today)


DECIDER = Decider(
    members(Command),
    (PURCHASE_ORDER, PRODUCT, STOCK, DELIVERY),
    "purchase_order_id",
    streams,
    decide,
    related_streams,
)
