"""Reads of servers that may be frozen: each costs its caller a bounded time, and none piles up."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from operations.server_errors import summarize

T = TypeVar("T")

LIMIT = 5.0
"""Seconds after which a read is given up, so that the next one begins on another connection."""


class ReadFailed(Exception):
    """A server could not be read; the text says why, in one line."""


class Reading(Generic[T]):
    """One read, of which at most one runs at a time.

    A caller that waits in vain leaves the read running, and the next caller waits for the same one. So a
    server that is frozen has one request to answer when it thaws, however often it was asked meanwhile.

    Args:
        read: reads.
        limit: seconds after which a read is given up.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], limit: float = LIMIT) -> None:
        self._read = read
        self._limit = limit
        self._task: asyncio.Task[T] | None = None
        self._silent_since = 0.0

    @property
    def running(self) -> bool:
        """Whether a read has not ended yet."""
        return self._task is not None and not self._task.done()

    async def get(self, seconds: float) -> T:
        """Return the result.

        Raises:
            ReadFailed: there is none within this time, or the read failed.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await asyncio.wait({self._task}, timeout=seconds)
        if not self._task.done():
            self._silent_since = self._silent_since or monotonic() - seconds
            raise ReadFailed(f"no answer for {monotonic() - self._silent_since:.0f} s")
        try:
            result = self._task.result()
        except Exception as error:
            raise ReadFailed(summarize(error)) from error
        self._silent_since = 0.0
        return result

    async def _run(self) -> T:
        async with asyncio.timeout(self._limit):
            return await self._read()

    def close(self) -> None:
        """Give up a read that runs."""
        if self._task is not None:
            self._task.cancel()
