"""Exponential backoff with jitter, for whatever is tried again."""

import random


class Backoff:
    """Pauses that double from one attempt to the next, each shortened at random by up to half.

    Args:
        first: the longest first pause, in seconds.
        longest: the longest pause of all, in seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._attempts = 0

    def reset(self) -> None:
        """Begin again with the first pause, after a success."""
        self._attempts = 0

    def next_pause(self) -> float:
        """Return the seconds to wait before the next attempt."""
        pause = pause_before(self._attempts, self._first, self._longest)
        self._attempts += 1
        return pause


def pause_before(attempt: int, first: float, longest: float) -> float:
    """Return the seconds to wait before an attempt, for state that is kept elsewhere.

    Args:
        attempt: how many pauses came before this one, 0 or more.
        first: the longest first pause, in seconds.
        longest: the longest pause of all, in seconds.
    """
    pause = min(longest, first * 2.0 ** min(attempt, 64))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
