"""Whether an order looks like fraud: pure rules over the order and its customer's earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

LARGE = 5_000
"""Whole units of a currency from which an order is looked at."""
LARGE_ELSEWHERE = 500
"""The same, where it goes to an address that none of the customer's earlier orders went to."""
IN_AN_HOUR = 5
"""Orders of a customer within an hour from which the next one is looked at."""
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Facts:
    """What the rules know of an order."""

    units: int
    """Whole units that it comes to."""
    currency_code: str
    placed_at: datetime
    addresses: tuple[str, ...]
    """The digests of where it goes: sagas remember no address."""


def suspicions(order: Facts, earlier: Sequence[Any]) -> list[str]:
    """Return what is odd about an order, in words; nothing where nothing is.

    Args:
        order: the order.
        earlier: the customer's earlier orders, as they are read.
    """
    recent = [one for one in earlier if order.placed_at - one.place_time.ToDatetime(UTC) < HOUR]
    known = {digest(group.shipping_address) for one in earlier for group in one.shipping_groups}
    elsewhere = not known.issuperset(order.addresses)
    amount = f"it comes to {order.units} {order.currency_code}"
    found = []
    if order.units >= LARGE:
        found.append(amount)
    elif elsewhere and order.units >= LARGE_ELSEWHERE:
        found.append(f"{amount} and goes to a new address")
    if len(recent) >= IN_AN_HOUR:
        found.append(f"the customer has placed {len(recent)} orders within the hour before")
    return found


def digest(address: Any) -> str:
    """Return what tells one address from another."""
    return blake2b(address.SerializeToString(deterministic=True), digest_size=12).hexdigest()
