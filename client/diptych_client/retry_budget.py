"""A limit on the retries of a connection, so that an outage does not multiply the load on the servers."""

import threading
import time
from collections.abc import Callable


class RetryBudget:
    """A token bucket: each retry takes a token; time and new calls put tokens back.

    While the bucket is empty, retries wait for their turn. All retries together therefore never exceed
    `capacity + rate * seconds + ratio * calls`. Threads may share a budget, and so may connections.

    Args:
        rate: retries that are always possible, per second; above 0.
        ratio: additional retries for each call.
        capacity: the most tokens that the bucket holds, and its content at the start; 1 or more.
        clock: returns seconds.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        rate: float = 10.0,
        ratio: float = 0.2,
        capacity: float = 100.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate <= 0 or ratio < 0 or capacity < 1:
            raise ValueError("RetryBudget: rate must be above 0, ratio 0 or more, capacity 1 or more")
        self._rate = rate
        self._ratio = ratio
        self._capacity = capacity
        self._clock = clock
        self._tokens = capacity  # negative while retries wait for tokens that they have taken in advance
        self._updated_at = clock()
        self._lock = threading.Lock()

    def record_call(self) -> None:
        """Add the tokens for a new call."""
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + self._ratio)

    def reserve(self, within: float) -> float | None:
        """Take a token; return the seconds until its retry may be sent.

        Args:
            within: seconds that the caller can wait; if the token comes later, the result is None.
        """
        with self._lock:
            self._add_tokens()
            wait = max(0.0, (1.0 - self._tokens) / self._rate)
            if wait > within:
                return None
            self._tokens -= 1.0
            return wait

    def _add_tokens(self) -> None:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._updated_at) * self._rate)
        self._updated_at = now
