"""Times and errors of parked aggregates, as messages can have them."""

from datetime import UTC, datetime, timedelta
from time import time

from operations_server.explanations.words import cut

MAX_TEXT_LENGTH = 1_000
"""Characters of an error in a response; the rest is cut off."""
LAST_TIME = 253_402_300_799_000
"""The last millisecond that a `Timestamp` can have, but for a second."""


def to_time(milliseconds: int, *, now_if_zero: bool = False) -> datetime:
    """Return a time in milliseconds since 1970, within the bounds of a `Timestamp`.

    Args:
        milliseconds: since 1970.
        now_if_zero: whether 0 stands for a time that has come by any clock, as after an operator's retry.
    """
    if now_if_zero and not milliseconds:
        milliseconds = int(time() * 1000)
    bounded = min(max(milliseconds, 0), LAST_TIME)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=bounded)


def cut_error(error: str) -> str:
    return cut(error, MAX_TEXT_LENGTH)
