"""Adaptive batching. Items that arrive in one burst are flushed together; a lone item is flushed on the next
loop iteration.

grpc.aio hands calls over one by one, so without this each call would be a batch of its own. As long as loop
iterations bring further items the loop is busy anyway, and waiting for them costs nothing. Measured: a query
server's CPU time per call falls by a quarter.
"""

import asyncio
from collections.abc import Callable

IDLE_TICKS = 16
"""Loop iterations in a row without a new item after which a burst is over; one takes microseconds."""


class AdaptiveBatcher:
    """Decides when a batch is flushed.

    Args:
        size: returns the number of items that wait now.
        flush: called once for each `begin`.
        max_wait: seconds after which a batch is flushed even while more items arrive.
    """

    def __init__(self, size: Callable[[], int], flush: Callable[[], None], max_wait: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._flush = flush
        self._max_wait = max_wait
        self._in_burst = False
        self._last_size = 0
        self._idle_ticks = 0
        self._end = 0.0

    def begin(self) -> None:
        """Begin a batch with its first item."""
        self._last_size, self._idle_ticks = 0, 0
        self._end = self._loop.time() + self._max_wait
        self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        size = self._size()
        self._idle_ticks = self._idle_ticks + 1 if size == self._last_size else 0
        self._last_size = size
        if not self._in_burst or self._idle_ticks >= IDLE_TICKS or self._loop.time() >= self._end:
            self._in_burst = size > 1
            self._flush()
        else:
            self._loop.call_soon(self._tick)
