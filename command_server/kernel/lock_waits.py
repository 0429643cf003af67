"""Commands whose stream another transaction has locked for long: they wait outside the batches.

A batch waits for locks, since those of other servers are held for milliseconds. Where that takes too long, it
runs again without the streams that are locked, and their commands wait here. They return to the next batches
every RETRY_PAUSE. Until a stream was not found locked for SUSPICION, batches with commands of it wait for no
lock.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from command_server.kernel.batch import Request, StreamLocked
from command_server.kernel.queued_command import QueuedCommand, fail

RETRY_PAUSE = 0.1
"""Seconds between two attempts of a command."""
MAX_WAIT = 1.0
"""Seconds from the first attempt after which a command fails."""
MAX_WAITS_OF_STREAM = 64
"""Commands that may wait for one stream; more fail at once: attempts of many would take long."""
DEADLINE_MARGIN = 0.1
"""Seconds before its deadline until which an attempt of a command must begin."""
SUSPICION = 1.0
"""Seconds after which a batch may wait for a stream's lock again."""


class LockWaits:
    """The waiting commands.

    Args:
        resume: called with each command that is to be tried again.
        on_resume: called after that.
    """

    def __init__(self, resume: Callable[[QueuedCommand], None], on_resume: Callable[[], None]) -> None:
        self._resume = resume
        self._on_resume = on_resume
        self._of_stream: Counter[str] = Counter()
        self._found_at: dict[str, float] = {}
        """By stream: when it was last found locked."""
        self.count = 0

    def begin(self, queued: QueuedCommand, locked: StreamLocked) -> None:
        """Let a command wait, unless it has waited long enough."""
        now = perf_counter()
        self._found_at[locked.stream] = now
        queued.locked_since = queued.locked_since or now
        ends_at, deadline = queued.locked_since + MAX_WAIT, queued.request.deadline
        if deadline is not None:
            ends_at = min(ends_at, deadline - DEADLINE_MARGIN)
        if now + RETRY_PAUSE > ends_at or self._of_stream[locked.stream] >= MAX_WAITS_OF_STREAM:
            fail([queued], locked)
            return
        self.count += 1
        self._of_stream[locked.stream] += 1
        asyncio.get_running_loop().call_later(RETRY_PAUSE, self._end, queued, locked.stream)

    def includes_any(self, batch: Sequence[QueuedCommand]) -> bool:
        """Return whether a command has waited here, or names a stream that was found locked lately."""
        if not self._found_at:
            return False
        oldest = perf_counter() - SUSPICION
        self._found_at = {name: found for name, found in self._found_at.items() if found > oldest}
        return any(
            each.locked_since is not None or not self._found_at.keys().isdisjoint(_list_streams(each.request))
            for each in batch
        )

    def _end(self, queued: QueuedCommand, stream: str) -> None:
        self.count -= 1
        self._of_stream -= Counter([stream])
        self._resume(queued)
        self._on_resume()


def _list_streams(request: Request) -> Iterable[str]:
    try:
        return request.kind.decider.streams(request.command)
    except Exception:  # a bug of this command, which it fails with in the batch
        return ()
