"""Payment windows: what was paid within the last 24 hours, in state of bounded size.

A window has one bucket for each hour of the clock in which something was paid, at most 25. A bucket counts
until its whole hour is 24 hours ago: a payment counts for 24 to 25 hours, so no payer gains by the rounding.
Amounts are exact. A time before that of the last payment counts as that one's hour.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce

from command_server.kernel.money import Money

HOURS = 24
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The payments of one hour."""

    hour: int
    """Since 1970."""
    count: int
    amount: Money


Window = tuple[Bucket, ...]
"""In the order of their hours."""


def add_payment(window: Window, amount: Money, now: datetime) -> Window:
    """Return a window with one payment more, without the buckets that no longer count."""
    hour = max(_count_hours(now), window[-1].hour if window else 0)
    kept = tuple(bucket for bucket in window if hour <= bucket.hour + HOURS)
    if kept and kept[-1].hour == hour:
        last = kept[-1]
        return (*kept[:-1], Bucket(hour, last.count + 1, last.amount + amount))
    return (*kept, Bucket(hour, 1, amount))


def list_counted(window: Window, now: datetime) -> Window:
    """Return the buckets that count at a time."""
    hour = _count_hours(now)
    return tuple(bucket for bucket in window if hour <= bucket.hour + HOURS)


def sum_amounts(amounts: Iterable[Money], currency_code: str) -> Money:
    return reduce(Money.__add__, amounts, Money(currency_code, 0))


def sum_window(window: Window, currency_code: str, now: datetime) -> Money:
    """Return the sum of the payments that count at a time."""
    return sum_amounts((bucket.amount for bucket in list_counted(window, now)), currency_code)


def _count_hours(time: datetime) -> int:
    return (time - EPOCH) // timedelta(hours=1)
