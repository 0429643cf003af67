"""Prices in force and subtrees, as the queries of the catalogue find them."""

from datetime import UTC, datetime, timedelta

import pytest
from diptych.catalogue.v1.types_pb2 import CategoryTree, Product
from google.type.money_pb2 import Money

from query_server.contexts.catalogue.index import CLOCKS_DIFFER, find_price
from query_server.contexts.catalogue.tree import find_children, list_subtree

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def make_product(**hours: int) -> Product:
    """Return a product with these prices in euros, each named after its hour, for instance `at_2=9`."""
    product = Product()
    for name, units in hours.items():
        price = product.prices.add(amount=Money(currency_code="EUR", units=units))
        price.effective_from.FromDatetime(NOW + timedelta(hours=int(name.removeprefix("at_"))))
    return product


@pytest.mark.parametrize(
    ("after", "units"),
    [
        (timedelta(hours=-1), None),
        (-CLOCKS_DIFFER, 9),
        (timedelta(0), 9),
        (timedelta(hours=2) - CLOCKS_DIFFER - timedelta(microseconds=1), 9),
        (timedelta(hours=2) - CLOCKS_DIFFER, 12),
        (timedelta(days=9), 12),
    ],
)
def test_a_price_is_quoted_from_its_time_or_just_before(after: timedelta, units: int | None) -> None:
    price = find_price(make_product(at_0=9, at_2=12), NOW + after)
    assert (price.units if price else None) == units


def test_a_subtree_is_a_category_and_all_below_it() -> None:
    tree = CategoryTree()
    for category_id, parent_id in (("c", "b"), ("a", ""), ("b", "a"), ("d", "a"), ("e", "")):
        tree.categories.add(category_id=category_id, parent_id=parent_id)
    children = find_children(tree.SerializeToString())
    first, *below = list_subtree(children, "a")
    assert (first, sorted(below)) == ("a", ["b", "c", "d"])
    assert list(list_subtree(children, "b")) == ["b", "c"]
    assert list(list_subtree(children, "unknown")) == []
