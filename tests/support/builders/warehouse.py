"""Inventory as tests ask for it."""

from datetime import datetime, timedelta

from command_server.contexts.inventory import CONTEXT
from command_server.contexts.inventory.domain.messages import (
    ReceiveStock,
    RegisterProduct,
    ReservationLine,
    ReserveStock,
)
from command_server.contexts.inventory.domain.stock import Stock, stock_stream
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World

SKU, WAREHOUSE, ELSEWHERE = "tea/green", "w-1", "w-2"
DEADLINE = NOW + timedelta(hours=1)


def world(*, on_hand: int = 0, reorder_point: int = 0) -> World:
    """Return a world with a registered product, and so much of it in a warehouse."""
    made = World(*CONTEXT.deciders)
    made.do(RegisterProduct(SKU, "Green tea", reorder_point))
    if on_hand:
        made.do(receive(on_hand))
    return made


def receive(quantity: int, note: str = "n-1", *, sku: str = SKU, warehouse: str = WAREHOUSE) -> ReceiveStock:
    return ReceiveStock(sku, warehouse, quantity, "po-1", note)


def reserve(id_: str, *lines: tuple[str, str, int] | int, deadline: datetime = DEADLINE) -> ReserveStock:
    """Return a command to reserve lines; a number alone is of SKU in WAREHOUSE."""
    of = [(SKU, WAREHOUSE, line) if isinstance(line, int) else line for line in lines]
    return ReserveStock(id_, tuple(ReservationLine(*line) for line in of), deadline)


def stock(made: World, sku: str = SKU, warehouse: str = WAREHOUSE) -> Stock:
    found: Stock = made.state(stock_stream(sku, warehouse))
    return found


def levels(made: World, warehouse: str = WAREHOUSE) -> tuple[int, int, int]:
    """Return what is on hand, reserved and in transit."""
    found = stock(made, warehouse=warehouse)
    return found.on_hand, found.reserved, found.in_transit
