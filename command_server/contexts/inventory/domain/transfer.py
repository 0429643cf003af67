"""A transfer's story: stock leaves one warehouse, is in transit, and arrives at another. No piece is lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from command_server.contexts.inventory.domain import product, stock
from command_server.contexts.inventory.domain.messages import (
    CompleteTransfer,
    StockArrived,
    StockExpected,
    StockSent,
    TransferCompleted,
    TransferStarted,
    TransferStock,
)
from command_server.contexts.inventory.domain.product import PRODUCT, Product, product_stream
from command_server.contexts.inventory.domain.stock import STOCK, Stock, stock_stream, with_alert
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members

Command = TransferStock | CompleteTransfer
Event = TransferStarted | TransferCompleted


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer as its rules see it."""

    sku: str = ""
    from_warehouse_id: str = ""
    to_warehouse_id: str = ""
    quantity: int = 0
    completed: bool = False


def evolve(transfer: Transfer, event: Event) -> Transfer:
    """Return the transfer after an event."""
    match event:
        case TransferStarted():
            return Transfer(event.sku, event.from_warehouse_id, event.to_warehouse_id, event.quantity)
        case TransferCompleted():
            return replace(transfer, completed=True)


TRANSFER = Aggregate("inventory.transfer", Transfer(), evolve, members(Event))


def streams(command: Command) -> Sequence[str]:
    """A transfer is about the stock at both ends,"""
    name = TRANSFER.stream(command.transfer_id)
    if isinstance(command, CompleteTransfer):
        return (name,)
    ends = (command.from_warehouse_id, command.to_warehouse_id)
    return (name, *(stock_stream(command.sku, end) for end in ends), product_stream(command.sku))


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """and its arrival about the stock where it arrives."""
    if isinstance(command, TransferStock):
        return ()
    (transfer,) = states.values()
    return [stock_stream(transfer.sku, transfer.to_warehouse_id)] if transfer.sku else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Return what happens, or raise Rejected."""
    name, *stocks = states
    transfer: Transfer = states[name]
    match command:
        case TransferStock() if transfer.sku:
            if transfer == _asked(transfer, command):
                return {}
            raise AlreadyExists("TRANSFER_EXISTS", transfer_id=command.transfer_id)
        case TransferStock():
            return send(command, states, now)
        case CompleteTransfer(transfer_id):
            if not transfer.sku:
                raise NotFound("TRANSFER_NOT_FOUND", transfer_id=transfer_id)
            if transfer.completed:
                return {}
            (there,) = stocks
            completed = [TransferCompleted(transfer_id, completed_at=now)]
            return {name: completed, there: arrive(transfer_id, transfer.quantity, states[there], now)}


def _asked(transfer: Transfer, command: TransferStock) -> Transfer:
    ends = (command.from_warehouse_id, command.to_warehouse_id)
    return Transfer(command.sku, *ends, command.quantity, transfer.completed)


def send(command: TransferStock, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Let stock leave."""
    if command.from_warehouse_id == command.to_warehouse_id:
        raise Rejected("TRANSFER_WAREHOUSE_SAME", warehouse_id=command.to_warehouse_id)
    name, from_name, to_name, product_name = states
    here: Stock = states[from_name]
    there: Stock = states[to_name]
    of: Product = states[product_name]
    sku, quantity, to = command.sku, command.quantity, command.to_warehouse_id
    product.check_known(of, sku)
    stock.check_available(here, sku, command.from_warehouse_id, quantity)
    stock.check_room(there.on_hand + there.in_transit + quantity)
    id_, leaves = command.transfer_id, command.from_warehouse_id
    sent = StockSent(sku, leaves, id_, to, quantity, here.on_hand - quantity, here.reserved, sent_at=now)
    expected = StockExpected(sku, to, id_, leaves, quantity, there.in_transit + quantity, expected_at=now)
    began = product.opened(of, there, to, now)
    return {
        name: [TransferStarted(id_, sku, leaves, to, quantity, started_at=now)],
        from_name: with_alert(here, [sent], now),
        to_name: with_alert(there, [*began, expected], now),
        product_name: product.stocked(of, sku, to, now),
    }


def arrive(transfer_id: str, quantity: int, there: Stock, now: datetime) -> Sequence[stock.Event]:
    """Turn stock in transit into stock on hand."""
    arrived = StockArrived(
        there.sku,
        there.warehouse_id,
        transfer_id,
        quantity,
        there.on_hand + quantity,
        there.reserved,
        there.in_transit - quantity,
        arrived_at=now,
    )
    return with_alert(there, [arrived], now)


DECIDER = Decider(
    members(Command), (TRANSFER, STOCK, PRODUCT), "transfer_id", streams, decide, related_streams
)
