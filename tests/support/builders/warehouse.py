"""Stock and commands for tests of inventory's rules."""

from datetime import datetime, timedelta

from command_server.contexts.inventory import CONTEXT
from command_server.contexts.inventory.domain.messages import (
    ReceiptReason,
    ReceiveStock,
    RegisterProduct,
    ReservationLine,
    ReserveStock,
)
from command_server.contexts.inventory.domain.stock import Stock, stock_stream
from diptych_testing.scenario import NOW
from diptych_testing.world import World

SKU, WAREHOUSE, ELSEWHERE = "tea/green", "w-1", "w-2"
DEADLINE = NOW + timedelta(hours=1)


def make_warehouse(*, on_hand: int = 0, reorder_point: int = 0) -> World:
    """Return a world with a registered product and `on_hand` pieces of it in WAREHOUSE."""
    world = World(*CONTEXT.deciders)
    world.execute(RegisterProduct(SKU, "Green tea", reorder_point))
    if on_hand:
        world.execute(receive(on_hand))
    return world


def receive(quantity: int, note: str = "n-1", *, sku: str = SKU, warehouse: str = WAREHOUSE) -> ReceiveStock:
    return ReceiveStock(sku, warehouse, quantity, ReceiptReason.OPENING, note)


def reserve(id_: str, *lines: tuple[str, str, int] | int, deadline: datetime = DEADLINE) -> ReserveStock:
    """Return the command that reserves these lines; a plain number is a quantity of SKU in WAREHOUSE."""
    full_lines = [(SKU, WAREHOUSE, line) if isinstance(line, int) else line for line in lines]
    return ReserveStock(id_, tuple(ReservationLine(*line) for line in full_lines), deadline)


def get_stock(world: World, sku: str = SKU, warehouse: str = WAREHOUSE) -> Stock:
    stock: Stock = world.state(stock_stream(sku, warehouse))
    return stock


def get_levels(world: World, warehouse: str = WAREHOUSE) -> tuple[int, int, int]:
    """Return the quantities of SKU on hand, reserved and in transit."""
    stock = get_stock(world, warehouse=warehouse)
    return stock.on_hand, stock.reserved, stock.in_transit
