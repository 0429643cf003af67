"""Fraud rules: pure functions of an order and of what was recorded before it was placed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from command_server.kernel.money import Money

LARGE_TOTAL = 5_000
"""Total from which an order is suspicious, in whole units of any currency."""
LARGE_TOTAL_NEW_ADDRESS = 500
"""The same for an order with an address that none of the customer's confirmed orders has."""
MANY_RECENT_ORDERS = 5
"""Number of a customer's orders in the RECENT time before an order from which that order is suspicious."""
RECENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts about an order that the rules need."""

    total: Money
    recent_order_ids: Sequence[str]
    """The customer's orders placed before it, within RECENT: the latest, MANY_RECENT_ORDERS at most."""
    new_address_group_ids: Sequence[str]
    """The shipping groups with an address that no order had which was confirmed before it was placed."""


def find_suspicions(order: Circumstances) -> list[str]:
    """Return the reasons to review the order, as texts for people; empty if there are none."""
    total = f"its total is {order.total.units} {order.total.currency_code}"
    suspicions = []
    if order.total.units >= LARGE_TOTAL:
        suspicions.append(total)
    elif order.new_address_group_ids and order.total.units >= LARGE_TOTAL_NEW_ADDRESS:
        suspicions.append(f"{total} and its address is new")
    if len(order.recent_order_ids) >= MANY_RECENT_ORDERS:
        suspicions.append(
            f"the customer placed {len(order.recent_order_ids)} orders or more in the hour before"
        )
    return suspicions
