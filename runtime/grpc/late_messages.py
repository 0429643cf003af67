"""Ends calls whose message does not arrive: each would keep its memory until its connection ends.

How it works. `limit` remembers the task of a call until its message is there (`forget`) or the block ends.
`run` cancels what is remembered for too long. One loop for all calls costs less than a timer for each. Where
MAX_WAITING are remembered, the next one ends the oldest: a crowd of such calls cannot keep others out.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MESSAGE_TIMEOUT = 20.0
"""Seconds within which the message of a call has to arrive."""
MAX_WAITING = 2_000
"""Calls that may wait for their message at the same time."""
INTERVAL = 1.0
"""Seconds between two looks at the calls that wait for their message."""


class LateMessages:
    """The calls of a server that wait for their message."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[Any] | None, float] = {}
        """When each call began to wait, the oldest first."""
        self._ended: set[asyncio.Task[Any] | None] = set()
        """Those that were cancelled here."""

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Limit the time in which the message of the current task's call arrives.

        Raises:
            TimeoutError: it has not arrived in time.
        """
        task = asyncio.current_task()
        if len(self._since) >= MAX_WAITING:
            self._end(next(iter(self._since)))
        self._since[task] = asyncio.get_running_loop().time()
        try:
            yield
        except asyncio.CancelledError:
            if task is None or task not in self._ended:
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            self._since.pop(task, None)
            self._ended.discard(task)

    def forget(self) -> None:
        """Lift the limit: the message of the current task's call has arrived."""
        self._since.pop(asyncio.current_task(), None)

    async def run(self, is_running: Callable[[], bool]) -> None:
        """Cancel the calls whose message is late, while the server runs."""
        while is_running():
            await asyncio.sleep(INTERVAL)
            latest = asyncio.get_running_loop().time() - MESSAGE_TIMEOUT
            for task in [task for task, since in self._since.items() if since <= latest]:
                self._end(task)

    def _end(self, task: asyncio.Task[Any] | None) -> None:
        del self._since[task]
        self._ended.add(task)
        if task is not None:
            task.cancel()
