"""Fraud rules: pure functions of an order and its customer's earlier orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

LARGE_TOTAL = 5_000
"""Total from which an order is suspicious, in whole units of any currency."""
LARGE_TOTAL_NEW_ADDRESS = 500
"""The same for an order whose address differs from those of all the customer's earlier orders."""
MANY_EARLIER_ORDERS = 5
"""Number of a customer's orders within HOUR from which the next one is suspicious."""
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Order:
    """The facts about an order that the rules need."""

    units: int
    """The total in whole units of the currency."""
    currency_code: str
    placed_at: datetime
    address_hashes: tuple[str, ...]
    """From `hash_address`, since sagas store no addresses."""


def find_suspicions(order: Order, earlier_orders: Sequence[Any]) -> list[str]:
    """Return the reasons to review an order, as texts for people; empty if there are none.

    Args:
        order: the order.
        earlier_orders: the customer's earlier orders, as ListOrders returns them.
    """
    recent = [
        earlier_order
        for earlier_order in earlier_orders
        if order.placed_at - earlier_order.place_time.ToDatetime(UTC) < HOUR
    ]
    known_hashes = {
        hash_address(group.shipping_address)
        for earlier_order in earlier_orders
        for group in earlier_order.shipping_groups
    }
    new_address = not known_hashes.issuperset(order.address_hashes)
    total = f"its total is {order.units} {order.currency_code}"
    suspicions = []
    if order.units >= LARGE_TOTAL:
        suspicions.append(total)
    elif new_address and order.units >= LARGE_TOTAL_NEW_ADDRESS:
        suspicions.append(f"{total} and its address is new")
    if len(recent) >= MANY_EARLIER_ORDERS:
        suspicions.append(f"the customer placed {len(recent)} orders in the hour before")
    return suspicions


def hash_address(address: Any) -> str:
    """Return a digest that is equal for equal addresses."""
    return blake2b(address.SerializeToString(deterministic=True), digest_size=12).hexdigest()
