"""Money: sums and products equal exact fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_server.kernel.money import MAX_UNITS, NANOS, CurrencyMismatch, Money

UNITS = st.integers(-(10**12), 10**12)


@st.composite
def amounts(draw: st.DrawFn) -> Money:
    value = draw(UNITS)
    nanos = draw(st.integers(0, NANOS - 1))
    return Money("EUR", value, -nanos if value < 0 else nanos)


def as_fraction(money: Money) -> Fraction:
    return Fraction(money.units) + Fraction(money.nanos, NANOS)


@given(amounts(), amounts(), st.integers(1, 10_000))
def test_sums_and_products_are_exact(a: Money, b: Money, count: int) -> None:
    assert as_fraction(a + b) == as_fraction(a) + as_fraction(b)
    assert as_fraction(a * count) == as_fraction(a) * count


@given(amounts(), amounts())
def test_units_and_nanos_keep_one_sign(a: Money, b: Money) -> None:
    total = a + b
    assert total.units * total.nanos >= 0
    assert abs(total.nanos) < NANOS


def test_amounts_of_two_currencies_cannot_be_added() -> None:
    with pytest.raises(CurrencyMismatch):
        Money("EUR", 1) + Money("USD", 1)


def test_an_amount_of_more_than_64_bits_is_an_error() -> None:
    with pytest.raises(ArithmeticError):
        Money("EUR", MAX_UNITS) * 2
