"""Exact amounts of money: the domain's counterpart of `google.type.Money`."""

import re
from dataclasses import dataclass
from typing import Annotated

from command_server.kernel.field_hints import FieldRule

NANOS = 1_000_000_000
MAX_UNITS = 2**63 - 1


class AmountOverflow(ArithmeticError):
    """The whole units of an amount exceed the 64 bits of `google.type.Money`."""


class CurrencyMismatch(ArithmeticError):
    """Amounts of two currencies cannot be added."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency: whole units and billionths of a unit, both with the same sign."""

    currency_code: str
    units: int
    nanos: int = 0

    def __add__(self, other: "Money") -> "Money":
        if self.currency_code != other.currency_code:
            raise CurrencyMismatch(f"{self.currency_code} and {other.currency_code}: different currencies")
        return _from_nanos(self.currency_code, self._total_nanos() + other._total_nanos())

    def __neg__(self) -> "Money":
        return Money(self.currency_code, -self.units, -self.nanos)

    def __sub__(self, other: "Money") -> "Money":
        return self + -other

    def __lt__(self, other: "Money") -> bool:
        return (self - other)._total_nanos() < 0

    def __le__(self, other: "Money") -> bool:
        return (self - other)._total_nanos() <= 0

    def __bool__(self) -> bool:
        """Return whether the amount is not zero."""
        return self._total_nanos() != 0

    def __mul__(self, count: int) -> "Money":
        return _from_nanos(self.currency_code, self._total_nanos() * count)

    def _total_nanos(self) -> int:
        return self.units * NANOS + self.nanos


def _from_nanos(currency_code: str, total: int) -> Money:
    units, nanos = divmod(abs(total), NANOS)
    if units > MAX_UNITS:
        raise AmountOverflow(f"{currency_code} {units}: more units than 64 bits hold")
    return Money(currency_code, units, nanos) if total >= 0 else Money(currency_code, -units, -nanos)


# Field rules of amounts in commands.

UNITS_LIMIT = 10**12
"""Exclusive upper bound of the whole units of a payment or a limit."""
_is_currency_code = re.compile("[A-Z]{3}").fullmatch


def _is_price(amount: Money) -> bool:
    """Return whether an amount is well formed and not negative."""
    in_range = 0 <= amount.units <= MAX_UNITS and 0 <= amount.nanos < NANOS
    return in_range and _is_currency_code(amount.currency_code) is not None


def _is_limit(amount: Money) -> bool:
    return _is_price(amount) and amount.units < UNITS_LIMIT


def _is_payment(amount: Money) -> bool:
    return _is_limit(amount) and bool(amount)


Price = Annotated[Money, FieldRule(_is_price, "must have a currency code and not be negative")]
Limit = Annotated[
    Money, FieldRule(_is_limit, f"must have a currency code, not be negative, and be below {UNITS_LIMIT}")
]
Payment = Annotated[
    Money, FieldRule(_is_payment, f"must have a currency code, be above zero, and be below {UNITS_LIMIT}")
]
