"""Exponential backoff with jitter."""

import random


class Backoff:
    """The pauses between attempts. They double from attempt to attempt; jitter shortens each by up to half.

    Args:
        initial: upper bound of the first pause, in seconds.
        maximum: upper bound of every pause, in seconds.
    """

    def __init__(self, initial: float, maximum: float) -> None:
        self._initial = initial
        self._maximum = maximum
        self._attempts = 0

    def reset(self) -> None:
        """Return to the initial pause; call it after a success."""
        self._attempts = 0

    def next_pause(self) -> float:
        """Return the pause before the next attempt, in seconds, and count the attempt."""
        pause = compute_pause(self._attempts, self._initial, self._maximum)
        self._attempts += 1
        return pause


def compute_pause(previous_pauses: int, initial: float, maximum: float) -> float:
    """Return the pause before an attempt, in seconds, for callers that count attempts themselves.

    Args:
        previous_pauses: number of pauses before this one, 0 or more.
        initial: upper bound of the first pause, in seconds.
        maximum: upper bound of every pause, in seconds; may be infinite.
    """
    pause = min(maximum, initial * 2.0 ** min(previous_pauses, 64))  # a float overflows at 2 ** 1024
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
