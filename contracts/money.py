"""Amounts as whole nanos: exact integer arithmetic for `google.type.Money`.

A Money splits its amount into units and nanos that share one sign, so adding field by field loses carries.
Projectors and query servers therefore convert to whole nanos, calculate, and convert back. Counters of a view
hold the two parts of a sum apart, as `units/...` and `nanos/...`; the parts are combined when they are read.
"""

from google.type.money_pb2 import Money

NANOS = 10**9
"""Nanos per currency unit."""


def to_nanos(amount: Money) -> int:
    """Return an amount in whole nanos; the currency is not part of the result."""
    return int(amount.units) * NANOS + int(amount.nanos)


def from_nanos(currency_code: str, nanos: int) -> Money:
    """Return the Money of a number of nanos; units and nanos both carry its sign."""
    units, fraction = divmod(abs(nanos), NANOS)
    sign = -1 if nanos < 0 else 1
    return Money(currency_code=currency_code, units=sign * units, nanos=sign * fraction)


def split_for_counters(amount: Money) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the parts of an amount that counters sum apart: `("units", n)` and `("nanos", n)`."""
    return ("units", int(amount.units)), ("nanos", int(amount.nanos))


def counter_to_nanos(part: str, value: int) -> int:
    """Return the value of a counter in nanos; `part` is `units` or `nanos`."""
    return value * NANOS if part == "units" else value
