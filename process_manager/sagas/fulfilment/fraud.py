"""Fraud rules: pure functions of an order and of its customer's other orders."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

LARGE_TOTAL = 5_000
"""Total from which an order is suspicious, in whole units of any currency."""
LARGE_TOTAL_NEW_ADDRESS = 500
"""The same for an order with an address that none of the customer's other orders has."""
MANY_OTHER_ORDERS = 5
"""Number of a customer's other orders within HOUR from which an order is suspicious."""
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Order:
    """The facts about an order that the rules need."""

    units: int
    """The total in whole units of the currency."""
    currency_code: str
    address_digests: tuple[str, ...]
    """Since sagas store no addresses."""


def find_suspicions(order: Order, recent_orders: int, known_digests: Collection[str]) -> list[str]:
    """Return the reasons to review the order, as texts for people; empty if there are none.

    Args:
        order: the order.
        recent_orders: the number of the customer's other orders, placed within HOUR before it or later.
        known_digests: those of its address digests that another order of the customer has.
    """
    new_address = not set(known_digests).issuperset(order.address_digests)
    total = f"its total is {order.units} {order.currency_code}"
    suspicions = []
    if order.units >= LARGE_TOTAL:
        suspicions.append(total)
    elif new_address and order.units >= LARGE_TOTAL_NEW_ADDRESS:
        suspicions.append(f"{total} and its address is new")
    if recent_orders >= MANY_OTHER_ORDERS:
        suspicions.append(f"the customer placed {recent_orders} orders in the hour before")
    return suspicions
