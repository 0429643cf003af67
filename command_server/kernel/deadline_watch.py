"""Commands that a slow commit would leave without an answer are answered shortly before their deadlines.

A commit that takes as long as usual costs one timer that never fires. After FIRST_TICK, or earlier in a
commit that is expected to be slow, a tick looks at the commands in the commit and in the queue. The caller of
a command in the commit is asked to repeat it for its outcome; a command that still waits in the queue is
refused, and not executed. A late tick shows that the event loop is late, and the answers would be as well, so
it looks further ahead.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST_TICK, FIRST_SLOW_TICK = 0.25, 0.05
"""Seconds from the beginning of a commit. One that is expected to be fast may end before a deadline that is
near, so its commands are not answered before it."""
TICK = 0.025
"""Seconds between further ticks."""
MARGIN = 0.05
"""Seconds before a deadline at which the answer is sent, if the event loop is idle."""
LATENESS_FACTOR = 2
"""A late loop delays both the tick and the answer."""


class DeadlineWatch:
    """Ticks during long commits.

    Args:
        answer_due: called with the number of seconds; answers the commands whose deadline is nearer.
    """

    def __init__(self, answer_due: Callable[[float], None]) -> None:
        self._answer_due = answer_due
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watch(self, *, is_slow: bool) -> Iterator[None]:
        """Tick during a commit, or during the pause before it; one at a time.

        Args:
            is_slow: whether the commit is expected to be slow.
        """
        self._schedule(FIRST_SLOW_TICK if is_slow else FIRST_TICK)
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def answer_before_commit(self) -> None:
        """Answer the commands whose deadline may come before the first tick of a long commit."""
        self._answer_due(FIRST_SLOW_TICK + MARGIN)

    def _schedule(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._tick, loop.time() + seconds)

    def _tick(self, due: float) -> None:
        lateness = asyncio.get_running_loop().time() - due
        self._answer_due(MARGIN + TICK + LATENESS_FACTOR * lateness)
        self._schedule(TICK)
