"""Products, stocks and categories as the projector stores them."""

from collections.abc import Mapping

from diptych.catalogue.v1.types_pb2 import CategoryTree, Product
from diptych.inventory.v1.types_pb2 import Stock
from google.type.money_pb2 import Money

EPOCH = 1_767_322_800
"""Seconds since 1970 of the first publication."""


def make_product(
    sku: str,
    title: str = "A thing",
    *,
    brand: str = "",
    description: str = "",
    attributes: Mapping[str, str] | None = None,
    category: str = "",
    euros: float = 10,
    later: tuple[float, float] | None = None,
    number: int = 0,
    version: int = 1,
    state: Product.State.ValueType = Product.STATE_PUBLISHED,
) -> Product:
    """Return a product.

    Args:
        sku, title, brand, description, attributes, category, version, state: as they are.
        euros: the price from the beginning on.
        later: another price, with the time in seconds since 1970 from which it is in force.
        number: products with higher ones were published later.
    """
    product = Product(sku=sku, version=version, state=state, category_id=category)
    product.details.title, product.details.brand, product.details.description = title, brand, description
    for name, value in (attributes or {}).items():
        product.details.attributes.add(name=name, value=value)
    for price, time in ((euros, EPOCH - 60.0), *([later] if later else [])):
        entry = product.prices.add(amount=make_money(price))
        entry.effective_from.FromNanoseconds(int(time * 1e9))
    product.draft_time.FromSeconds(EPOCH + number)
    product.publish_time.FromSeconds(EPOCH + number)
    return product


def make_money(euros: float) -> Money:
    cents = round(euros * 100)
    return Money(currency_code="EUR", units=cents // 100, nanos=cents % 100 * 10_000_000)


def make_stock(sku: str, available: int, *, warehouse: str = "w", version: int = 1) -> Stock:
    return Stock(
        sku=sku,
        version=version,
        warehouse_id=warehouse,
        on_hand=available,
        available=available,
        stock_id=f"{sku}-at-{warehouse}",
    )


def make_tree(**parents: str) -> CategoryTree:
    """Return a tree with these categories, each with the one above it; empty at the top."""
    tree = CategoryTree(version=len(parents))
    for category_id, parent_id in parents.items():
        tree.categories.add(category_id=category_id, parent_id=parent_id, name=category_id.title())
    return tree
