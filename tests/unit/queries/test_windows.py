"""Bounds of time hold exactly for what was placed at whole microseconds, whatever a caller asks for."""

from hypothesis import example, given
from hypothesis import strategies as st

from contracts.view_layout import LAST_MICROS, index_bound, index_member

MICROS = st.integers(0, LAST_MICROS - 1)
SECONDS, NANOS = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)


@given(MICROS, st.integers(-2_500, 2_500))
@example(1_767_323_045_000_000, 0)
@example(1_767_323_045_000_000, 1)
@example(1_767_323_045_000_000, -1)
@example(0, -1)
def test_a_bound_is_not_above_what_was_placed_then_or_later_and_above_all_else(
    micros: int, distance: int
) -> None:
    nanos = micros * 1000 + distance
    assert (index_bound(nanos) <= index_member(micros, "a")) == (nanos <= micros * 1000)


@given(MICROS, SECONDS, NANOS)
def test_absurd_times_are_bounds_as_well(micros: int, seconds: int, nanos: int) -> None:
    bound = index_bound(seconds * 10**9 + nanos)
    assert len(bound) == 16
    assert (bound <= index_member(micros, "a")) == (seconds * 10**9 + nanos <= micros * 1000)
