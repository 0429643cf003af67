"""Money and whole nanos convert into each other without loss, for either sign."""

from fractions import Fraction

import pytest
from google.type.money_pb2 import Money
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.money import NANOS, counter_to_nanos, from_nanos, split_for_counters, to_nanos

MAX_UNITS = 2**63 - 1
"""The largest `units` that a Money holds."""
AMOUNTS = st.integers(-MAX_UNITS * NANOS, MAX_UNITS * NANOS)
SMALL_AMOUNTS = st.integers(-3 * NANOS, 3 * NANOS)
"""Amounts whose sums often carry from nanos to units or change their sign."""


@given(st.one_of(AMOUNTS, SMALL_AMOUNTS))
@example(0)
@example(-1)
@example(NANOS)
@example(-NANOS)
@example(-MAX_UNITS * NANOS)
def test_nanos_survive_the_way_to_money_and_back(nanos: int) -> None:
    money = from_nanos("EUR", nanos)
    assert money.currency_code == "EUR"
    assert to_nanos(money) == nanos


@given(st.one_of(AMOUNTS, SMALL_AMOUNTS))
def test_units_and_nanos_share_the_sign_of_the_amount(nanos: int) -> None:
    money = from_nanos("EUR", nanos)
    assert abs(money.nanos) < NANOS
    assert money.units * nanos >= 0
    assert money.nanos * nanos >= 0


@given(st.lists(SMALL_AMOUNTS, max_size=8))
def test_sums_carry_between_nanos_and_units(amounts: list[int]) -> None:
    total = from_nanos("EUR", sum(to_nanos(from_nanos("EUR", amount)) for amount in amounts))
    assert Fraction(total.units) + Fraction(total.nanos, NANOS) == Fraction(sum(amounts), NANOS)


@pytest.mark.parametrize(
    ("nanos", "money"),
    [
        (1_990_000_000 + 20_000_000, Money(currency_code="EUR", units=2, nanos=10_000_000)),
        (1_010_000_000 - 20_000_000, Money(currency_code="EUR", nanos=990_000_000)),
        (10_000_000 - 20_000_000, Money(currency_code="EUR", nanos=-10_000_000)),
        (-1_990_000_000 - 20_000_000, Money(currency_code="EUR", units=-2, nanos=-10_000_000)),
        (500_000_000 - 500_000_000, Money(currency_code="EUR")),
    ],
)
def test_carries_and_borrows_end_in_one_normal_form(nanos: int, money: Money) -> None:
    assert from_nanos("EUR", nanos) == money


@given(st.lists(SMALL_AMOUNTS, max_size=8))
def test_counters_that_sum_the_parts_apart_hold_the_same_total(amounts: list[int]) -> None:
    counters = {"units": 0, "nanos": 0}
    for amount in amounts:
        for part, value in split_for_counters(from_nanos("EUR", amount)):
            counters[part] += value
    assert sum(counter_to_nanos(part, value) for part, value in counters.items()) == sum(amounts)
