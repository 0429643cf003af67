"""Time bounds are exact for orders placed at whole microseconds, for any nanosecond that a caller sends."""

from hypothesis import example, given
from hypothesis import strategies as st

from contracts.view_layout import MAX_MICROS, index_bound, index_member

MICROS = st.integers(0, MAX_MICROS - 1)
SECONDS, NANOS = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)


@given(MICROS, st.integers(-2_500, 2_500))
@example(1_767_323_045_000_000, 0)
@example(1_767_323_045_000_000, 1)
@example(1_767_323_045_000_000, -1)
@example(0, -1)
def test_a_bound_separates_earlier_members_from_later_ones(micros: int, distance: int) -> None:
    nanos = micros * 1000 + distance
    assert (index_bound(nanos) <= index_member(micros, "a")) == (nanos <= micros * 1000)


@given(MICROS, SECONDS, NANOS)
def test_times_outside_the_calendar_are_bounds_too(micros: int, seconds: int, nanos: int) -> None:
    bound = index_bound(seconds * 10**9 + nanos)
    assert len(bound) == 16
    assert (bound <= index_member(micros, "a")) == (seconds * 10**9 + nanos <= micros * 1000)
