"""Sums as projectors keep them: counters in a hash, with units and billionths of an amount apart."""

from collections.abc import Sequence

from google.type.money_pb2 import Money

NANOS = 10**9
"""Billionths in a unit."""


def counters(flat: Sequence[bytes]) -> dict[str, int]:
    """Return the reply to HGETALL of a hash of counters."""
    return {name.decode(): int(sum_) for name, sum_ in zip(flat[::2], flat[1::2], strict=True)}


def nanos(amount: Money) -> int:
    """Return an amount in billionths."""
    return int(amount.units) * NANOS + int(amount.nanos)


def money(currency_code: str, billionths: int) -> Money:
    """Return an amount of billionths."""
    units, rest = divmod(abs(billionths), NANOS)
    sign = -1 if billionths < 0 else 1
    return Money(currency_code=currency_code, units=sign * units, nanos=sign * rest)
