"""The product aggregate: registered once under its sku, stocked by warehouses, discontinued."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain.messages import (
    DiscontinueProduct,
    ProductDiscontinued,
    ProductRegistered,
    RegisterProduct,
    StockDiscontinued,
    StockOpened,
    WarehouseStocked,
)
from command_server.contexts.inventory.domain.stock import (
    STOCK,
    Stock,
    make_stock_id,
    stock_stream,
    with_alert,
)
from command_server.contexts.inventory.domain.stock import Event as StockEvent
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields

PRODUCT_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e02")
"""UUID namespace of product ids. An id is derived from the sku, so a sku belongs to one product stream."""

MAX_WAREHOUSES = 200
"""Maximum number of warehouses that stock a product. Its state, its view, the answers about its stock and the
streams of the command that discontinues it grow with them."""

Command = RegisterProduct | DiscontinueProduct
Event = ProductRegistered | WarehouseStocked | ProductDiscontinued


@dataclass(frozen=True, slots=True)
class Product:
    """The state of a product, as far as the rules need it."""

    sku: str = ""
    title: str = ""
    reorder_point: int = 0
    warehouse_ids: tuple[str, ...] = ()
    discontinued: bool = False


def check_registered(product: Product, sku: str) -> None:
    """Raise NotFound if the product is not registered."""
    if not product.sku:
        raise NotFound("PRODUCT_NOT_FOUND", sku=sku)


def add_warehouse(product: Product, warehouse_id: str, now: datetime) -> Sequence[Event]:
    """Return the event of a warehouse's first stock, or none if it has stocked the product before.

    Raises:
        Rejected: the product has its maximum of warehouses.
    """
    if warehouse_id in product.warehouse_ids:
        return []
    if len(product.warehouse_ids) >= MAX_WAREHOUSES:
        raise Rejected("PRODUCT_TOO_MANY_WAREHOUSES", sku=product.sku, most=MAX_WAREHOUSES)
    return [WarehouseStocked(product.sku, warehouse_id, stocked_at=now)]


def open_stock(product: Product, stock: Stock, warehouse_id: str, now: datetime) -> list[StockEvent]:
    """Return the first events of a product's stock in a warehouse, or none if the stock exists."""
    if stock.exists:
        return []
    id_ = make_stock_id(product.sku, warehouse_id)
    opened = StockOpened(product.sku, warehouse_id, product.reorder_point, opened_at=now, stock_id=id_)
    discontinued = StockDiscontinued(product.sku, warehouse_id, discontinued_at=now)
    return [opened, discontinued] if product.discontinued else [opened]


def streams(command: Command) -> Sequence[str]:
    return (product_stream(command.sku),)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """DiscontinueProduct also changes the product's stock in every warehouse that has stocked it."""
    (product,) = states.values()
    if isinstance(command, RegisterProduct) or product.discontinued:
        return ()
    return [stock_stream(command.sku, warehouse_id) for warehouse_id in product.warehouse_ids]


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    check_fields(command)
    name, *stock_names = states
    product: Product = states[name]
    match command:
        case RegisterProduct(sku, title, reorder_point):
            if not product.sku:
                return {name: [ProductRegistered(sku, title, reorder_point, now, make_product_id(sku))]}
            if (title, reorder_point) == (product.title, product.reorder_point):
                return {}
            raise AlreadyExists("PRODUCT_EXISTS", sku=sku)
        case DiscontinueProduct(sku):
            check_registered(product, sku)
            if product.discontinued:
                return {}
            stock_events = {stock: _discontinue_stock(states[stock], now) for stock in stock_names}
            return {name: [ProductDiscontinued(sku, discontinued_at=now)], **stock_events}


def _discontinue_stock(stock: Stock, now: datetime) -> Sequence[StockEvent]:
    discontinued = StockDiscontinued(stock.sku, stock.warehouse_id, discontinued_at=now)
    return with_alert(stock, [discontinued], now)


def evolve(product: Product, event: Event) -> Product:
    match event:
        case ProductRegistered():
            return Product(event.sku, event.title, event.reorder_point)
        case WarehouseStocked():
            return replace(product, warehouse_ids=(*product.warehouse_ids, event.warehouse_id))
        case ProductDiscontinued():
            return replace(product, discontinued=True)


PRODUCT = Aggregate("inventory.product", Product(), evolve, members(Event))


def make_product_id(sku: str) -> str:
    return str(uuid5(PRODUCT_IDS, sku))


def product_stream(sku: str) -> str:
    return PRODUCT.stream(make_product_id(sku))


DECIDER = Decider(members(Command), (PRODUCT, STOCK), "sku", streams, decide, related_streams)
