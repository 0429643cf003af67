"""The transfer aggregate: stock leaves one warehouse, is in transit, and arrives at another.

The same quantity leaves the first stock, is in transit to the second, and is added to it on completion, so a
transfer neither loses nor adds pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from command_server.contexts.inventory.domain.messages import (
    CompleteTransfer,
    StockArrived,
    StockExpected,
    StockSent,
    TransferCompleted,
    TransferStarted,
    TransferStock,
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
    check_available,
    check_capacity,
    stock_stream,
    with_alert,
)
from command_server.contexts.inventory.domain.stock import Event as StockEvent
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields

Command = TransferStock | CompleteTransfer
Event = TransferStarted | TransferCompleted


@dataclass(frozen=True, slots=True)
class Transfer:
    """The state of a transfer, as far as the rules need it."""

    sku: str = ""
    from_warehouse_id: str = ""
    to_warehouse_id: str = ""
    quantity: int = 0
    completed: bool = False


def evolve(transfer: Transfer, event: Event) -> Transfer:
    match event:
        case TransferStarted():
            return Transfer(event.sku, event.from_warehouse_id, event.to_warehouse_id, event.quantity)
        case TransferCompleted():
            return replace(transfer, completed=True)


TRANSFER = Aggregate("inventory.transfer", Transfer(), evolve, members(Event))


def streams(command: Command) -> Sequence[str]:
    """TransferStock also changes the stock in both warehouses and the product."""
    name = TRANSFER.stream(command.transfer_id)
    if isinstance(command, CompleteTransfer):
        return (name,)
    source = stock_stream(command.sku, command.from_warehouse_id)
    destination = stock_stream(command.sku, command.to_warehouse_id)
    return (name, source, destination, product_stream(command.sku))


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """CompleteTransfer also changes the destination's stock, which only the transfer's state names."""
    if isinstance(command, TransferStock):
        return ()
    (transfer,) = states.values()
    return [stock_stream(transfer.sku, transfer.to_warehouse_id)] if transfer.sku else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    check_fields(command)
    name, *stock_names = states
    transfer: Transfer = states[name]
    match command:
        case TransferStock() if transfer.sku:
            if is_same(command, transfer):
                return {}
            raise AlreadyExists("TRANSFER_EXISTS", transfer_id=command.transfer_id)
        case TransferStock():
            return send(command, states, now)
        case CompleteTransfer(transfer_id):
            if not transfer.sku:
                raise NotFound("TRANSFER_NOT_FOUND", transfer_id=transfer_id)
            if transfer.completed:
                return {}
            (destination_name,) = stock_names
            completed = TransferCompleted(transfer_id, completed_at=now)
            arrival = arrive(transfer_id, transfer.quantity, states[destination_name], now)
            return {name: [completed], destination_name: arrival}


def is_same(command: TransferStock, transfer: Transfer) -> bool:
    """Return whether a command repeats the one that started the transfer."""
    warehouse_ids = (command.from_warehouse_id, command.to_warehouse_id)
    return transfer == Transfer(command.sku, *warehouse_ids, command.quantity, transfer.completed)


def send(command: TransferStock, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Return the events of a new transfer by stream.

    Raises:
        NotFound: the product is not registered.
        Rejected: the warehouses are the same, the source has too few pieces, or the destination too many.
    """
    if command.from_warehouse_id == command.to_warehouse_id:
        raise Rejected("TRANSFER_WAREHOUSE_SAME", warehouse_id=command.to_warehouse_id)
    name, source_name, destination_name, product_name = states
    source: Stock = states[source_name]
    destination: Stock = states[destination_name]
    product: Product = states[product_name]
    id_, sku, quantity = command.transfer_id, command.sku, command.quantity
    from_id, to_id = command.from_warehouse_id, command.to_warehouse_id
    check_registered(product, sku)
    check_available(source, sku, from_id, quantity)
    check_capacity(destination.on_hand + destination.in_transit + quantity)
    on_hand, in_transit = source.on_hand - quantity, destination.in_transit + quantity
    sent = StockSent(sku, from_id, id_, to_id, quantity, on_hand, source.reserved, sent_at=now)
    expected = StockExpected(sku, to_id, id_, from_id, quantity, in_transit, expected_at=now)
    opening = open_stock(product, destination, to_id, now)
    return {
        name: [TransferStarted(id_, sku, from_id, to_id, quantity, started_at=now)],
        source_name: with_alert(source, [sent], now),
        destination_name: with_alert(destination, [*opening, expected], now),
        product_name: add_warehouse(product, to_id, now),
    }


def arrive(transfer_id: str, quantity: int, destination: Stock, now: datetime) -> Sequence[StockEvent]:
    """Return the events that turn stock in transit into stock on hand."""
    arrived = StockArrived(
        destination.sku,
        destination.warehouse_id,
        transfer_id,
        quantity,
        destination.on_hand + quantity,
        destination.reserved,
        destination.in_transit - quantity,
        arrived_at=now,
    )
    return with_alert(destination, [arrived], now)


DECIDER = Decider(
    members(Command), (TRANSFER, STOCK, PRODUCT), "transfer_id", streams, decide, related_streams
)
