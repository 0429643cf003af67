"""Ends calls whose message does not arrive: each would keep its memory until its connection ends.

How it works. `limit` remembers the task of a call until its message is there (`forget`) or the block ends.
`run` cancels what is remembered for too long. One loop for all calls costs less than a timer for each. Where
MAX_WAITING are remembered, the next one ends the older half of those of the peer that has most: a crowd of
such calls keeps no other peer out, and who has most is counted once in many calls.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

MESSAGE_TIMEOUT = 20.0
"""Seconds within which the message of a call has to arrive."""
MAX_WAITING = 2_000
"""Calls that may wait for their message at the same time."""
RETRY_AFTER = 1.0
"""Seconds after which one call more may find a place."""
INTERVAL = 1.0
"""Seconds between two looks at the calls that wait for their message."""


class CrowdedOutError(Exception):
    """Too many calls wait, most of them from this peer."""


class LateMessages:
    """The calls of a server that wait, usually for their message.

    Args:
        max_waiting: calls that may wait; None for MAX_WAITING.
    """

    def __init__(self, max_waiting: int | None = None) -> None:
        self._max_waiting = MAX_WAITING if max_waiting is None else max_waiting
        self._waiting: dict[asyncio.Task[Any] | None, tuple[float, Hashable]] = {}
        """Since when each call waits, and its peer, the oldest first."""
        self._ended: dict[asyncio.Task[Any] | None, type[Exception]] = {}
        """Those that were cancelled here, and the reason."""

    @contextmanager
    def limit(self, peer: Hashable = None) -> Iterator[None]:
        """Limit the time in which the message of the current task's call arrives.

        Args:
            peer: the connection of the call; None where it is not known, so that all calls are of one peer.

        Raises:
            TimeoutError: it has not arrived in time.
            CrowdedOutError: it is one of too many.
        """
        task = asyncio.current_task()
        if len(self._waiting) >= self._max_waiting:
            self._end_crowd()
        self._waiting[task] = asyncio.get_running_loop().time(), peer
        try:
            yield
        except asyncio.CancelledError:
            if task is None or task not in self._ended:
                raise
            task.uncancel()
            raise self._ended[task] from None
        finally:
            self._waiting.pop(task, None)
            self._ended.pop(task, None)

    def forget(self) -> None:
        """Lift the limit: the message of the current task's call has arrived."""
        self._waiting.pop(asyncio.current_task(), None)

    async def run(self, is_running: Callable[[], bool]) -> None:
        """Cancel the calls whose message is late, while the server runs."""
        while is_running():
            await asyncio.sleep(INTERVAL)
            latest = asyncio.get_running_loop().time() - MESSAGE_TIMEOUT
            for task in [task for task, (since, _) in self._waiting.items() if since <= latest]:
                self._end(task, TimeoutError)

    def _end_crowd(self) -> None:
        ((crowd, count),) = Counter(peer for _, peer in self._waiting.values()).most_common(1)
        tasks = (task for task, (_, peer) in self._waiting.items() if peer == crowd)
        for task in list(islice(tasks, (count + 1) // 2)):
            self._end(task, CrowdedOutError)

    def _end(self, task: asyncio.Task[Any] | None, reason: type[Exception]) -> None:
        del self._waiting[task]
        self._ended[task] = reason
        if task is not None:
            task.cancel()
