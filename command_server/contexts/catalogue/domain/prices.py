"""The prices of a product: each is in force from its time on, until the next one is.

Nothing has to happen for a price of the future to come into force: the time is compared whenever a price is
needed.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime

from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money

MAX_SCHEDULED = 20
"""Maximum number of a product's prices of the future."""
MAX_KEPT = 32
"""Number of a product's latest prices in its state and view: those of the future, and some before."""


@dataclass(frozen=True, slots=True)
class ScheduledPrice:
    """A price that is in force from a time on."""

    amount: Money
    effective_from: datetime


Prices = tuple[ScheduledPrice, ...]
"""By their time, earliest first."""


def find_price(prices: Prices, time: datetime) -> Money | None:
    """Return the price in force at a time, or None before the first one."""
    position = bisect_right(prices, time, key=lambda price: price.effective_from)
    return prices[position - 1].amount if position else None


def with_price(prices: Prices, entry: ScheduledPrice) -> Prices:
    """Return the latest prices with this one, which replaces one of the same time."""
    others = [price for price in prices if price.effective_from != entry.effective_from]
    return tuple(sorted([*others, entry], key=lambda price: price.effective_from)[-MAX_KEPT:])


def check_price(prices: Prices, entry: ScheduledPrice, now: datetime) -> None:
    """Check that a price may be set.

    Raises:
        Rejected: `PRICE_IN_THE_PAST`, `PRICE_CURRENCY_MIXED`, `PRICE_TOO_MANY_SCHEDULED`.
    """
    if entry.effective_from < now:
        raise Rejected("PRICE_IN_THE_PAST", effective_from=entry.effective_from, now=now)
    if prices and prices[0].amount.currency_code != entry.amount.currency_code:
        currencies = f"{prices[0].amount.currency_code} and {entry.amount.currency_code}"
        raise Rejected("PRICE_CURRENCY_MIXED", currencies=currencies)
    scheduled = [price for price in with_price(prices, entry) if price.effective_from > now]
    if len(scheduled) > MAX_SCHEDULED:
        raise Rejected("PRICE_TOO_MANY_SCHEDULED", most=MAX_SCHEDULED)
