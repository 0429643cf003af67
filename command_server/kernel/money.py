"""Exact amounts, the domain's counterpart of `google.type.Money` as `datetime` is of a timestamp."""

from dataclasses import dataclass

NANOS = 1_000_000_000
MAX_UNITS = 2**63 - 1


class AmountOverflow(ArithmeticError):
    """An amount does not fit the 64 bits that `google.type.Money` has for whole units."""


class CurrencyMismatch(ArithmeticError):
    """Amounts of two currencies cannot be added."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency: whole units, and billionths of one with the same sign."""

    currency_code: str
    units: int
    nanos: int = 0

    def __add__(self, other: "Money") -> "Money":
        if self.currency_code != other.currency_code:
            raise CurrencyMismatch(f"{self.currency_code} and {other.currency_code}")
        return _of_nanos(self.currency_code, self._nanos() + other._nanos())

    def __neg__(self) -> "Money":
        return Money(self.currency_code, -self.units, -self.nanos)

    def __sub__(self, other: "Money") -> "Money":
        return self + -other

    def __lt__(self, other: "Money") -> bool:
        return (self - other)._nanos() < 0

    def __le__(self, other: "Money") -> bool:
        return (self - other)._nanos() <= 0

    def __bool__(self) -> bool:
        """Whether it is not zero."""
        return self._nanos() != 0

    def __mul__(self, count: int) -> "Money":
        return _of_nanos(self.currency_code, self._nanos() * count)

    def _nanos(self) -> int:
        return self.units * NANOS + self.nanos


def _of_nanos(currency_code: str, total: int) -> Money:
    sign = -1 if total < 0 else 1
    units, nanos = divmod(abs(total), NANOS)
    if units > MAX_UNITS:
        raise AmountOverflow(f"{units} units of {currency_code}")
    return Money(currency_code, sign * units, sign * nanos)
