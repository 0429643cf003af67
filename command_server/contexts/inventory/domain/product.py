"""A product's story: registered once under its sku, stocked by warehouses, discontinued."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.inventory.domain import stock
from command_server.contexts.inventory.domain.messages import (
    DiscontinueProduct,
    ProductDiscontinued,
    ProductRegistered,
    RegisterProduct,
    StockDiscontinued,
    StockOpened,
    WarehouseStocked,
)
from command_server.contexts.inventory.domain.stock import STOCK, Stock, stock_stream
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, members

PRODUCT_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e02")
"""The namespace of products' ids, which are made of their skus; that makes a sku unique."""

Command = RegisterProduct | DiscontinueProduct
Event = ProductRegistered | WarehouseStocked | ProductDiscontinued


@dataclass(frozen=True, slots=True)
class Product:
    """A product as its rules see it."""

    sku: str = ""
    title: str = ""
    reorder_point: int = 0
    warehouse_ids: tuple[str, ...] = ()
    discontinued: bool = False


def check_known(product: Product, sku: str) -> None:
    """Refuse a sku that nobody has registered."""
    if not product.sku:
        raise NotFound("PRODUCT_NOT_FOUND", sku=sku)


def stocked(product: Product, sku: str, warehouse_id: str, now: datetime) -> Sequence[Event]:
    """Return that a warehouse holds the product for the first time, if it does."""
    known = warehouse_id in product.warehouse_ids
    return [] if known else [WarehouseStocked(sku, warehouse_id, stocked_at=now)]


def opened(product: Product, of: Stock, warehouse_id: str, now: datetime) -> list[stock.Event]:
    """Return that a product's stock in a warehouse begins, unless it has."""
    if of.exists:
        return []
    id_ = stock.stock_id(product.sku, warehouse_id)
    begins = StockOpened(product.sku, warehouse_id, product.reorder_point, opened_at=now, stock_id=id_)
    ends = StockDiscontinued(product.sku, warehouse_id, discontinued_at=now)
    return [begins, ends] if product.discontinued else [begins]


def streams(command: Command) -> Sequence[str]:
    """A command is about its product,"""
    return (product_stream(command.sku),)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """and the end of a product is about its stock in all warehouses."""
    (product,) = states.values()
    if isinstance(command, RegisterProduct) or product.discontinued:
        return ()
    return [stock_stream(command.sku, warehouse_id) for warehouse_id in product.warehouse_ids]


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    """Return what happens, or raise Rejected."""
    name, *stocks = states
    product: Product = states[name]
    match command:
        case RegisterProduct(sku, title, reorder_point):
            if not product.sku:
                return {name: [ProductRegistered(sku, title, reorder_point, now, product_id(sku))]}
            if (title, reorder_point) == (product.title, product.reorder_point):
                return {}
            raise AlreadyExists("PRODUCT_EXISTS", sku=sku)
        case DiscontinueProduct(sku):
            check_known(product, sku)
            if product.discontinued:
                return {}
            ended = {name: [ProductDiscontinued(sku, discontinued_at=now)]}
            return ended | {each: _ended(states[each], now) for each in stocks}


def _ended(of: Stock, now: datetime) -> Sequence[stock.Event]:
    return stock.with_alert(of, [StockDiscontinued(of.sku, of.warehouse_id, discontinued_at=now)], now)


def evolve(product: Product, event: Event) -> Product:
    """Return the product after an event."""
    match event:
        case ProductRegistered():
            return Product(event.sku, event.title, event.reorder_point)
        case WarehouseStocked():
            return replace(product, warehouse_ids=(*product.warehouse_ids, event.warehouse_id))
        case ProductDiscontinued():
            return replace(product, discontinued=True)


PRODUCT = Aggregate("inventory.product", Product(), evolve, members(Event))


def product_id(sku: str) -> str:
    """Return the id of a product."""
    return str(uuid5(PRODUCT_IDS, sku))


def product_stream(sku: str) -> str:
    """Return the name of a product's stream."""
    return PRODUCT.stream(product_id(sku))


DECIDER = Decider(members(Command), (PRODUCT, STOCK), "sku", streams, decide, related_streams)
