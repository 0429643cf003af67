"""Amounts are exact: they agree with fractions for any amounts and counts."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_server.kernel.money import MAX_UNITS, NANOS, CurrencyMismatch, Money

units = st.integers(-(10**12), 10**12)


@st.composite
def amounts(draw: st.DrawFn) -> Money:
    value = draw(units)
    nanos = draw(st.integers(0, NANOS - 1))
    return Money("EUR", value, -nanos if value < 0 else nanos)


def exact(money: Money) -> Fraction:
    return Fraction(money.units) + Fraction(money.nanos, NANOS)


@given(amounts(), amounts(), st.integers(1, 10_000))
def test_sums_and_products_are_exact(a: Money, b: Money, count: int) -> None:
    assert exact(a + b) == exact(a) + exact(b)
    assert exact(a * count) == exact(a) * count


@given(amounts(), amounts())
def test_units_and_nanos_keep_one_sign(a: Money, b: Money) -> None:
    total = a + b
    assert total.units * total.nanos >= 0
    assert abs(total.nanos) < NANOS


def test_two_currencies_do_not_add_up() -> None:
    with pytest.raises(CurrencyMismatch):
        Money("EUR", 1) + Money("USD", 1)


def test_an_amount_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ArithmeticError):
        Money("EUR", MAX_UNITS) * 2
