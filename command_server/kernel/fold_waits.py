"""Commands that wait for the fold of a long stream, outside the queue and the batches.

The wait ends with the fold, with the deadline, or when the caller cancels. Then the command goes first in the
next batch, and has the state that was folded for it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from command_server.kernel.batch import NotFolded
from command_server.kernel.outcomes import DeadlinePassed, Overloaded
from command_server.kernel.queued_command import QueuedCommand, fail
from command_server.kernel.snapshot import FoldedState
from command_server.kernel.stream_folder import StreamFolder

MAX_WAITS, MAX_WAITS_OF_STREAM = 1_024, 256
"""Commands that may wait, in all and for one stream; more get OVERLOADED."""


class FoldWaits:
    """The waiting commands.

    Args:
        folder: folds the streams.
        resume: called with each command whose stream is folded.
        on_end: called after the end of each wait.
    """

    def __init__(
        self, folder: StreamFolder, resume: Callable[[QueuedCommand], None], on_end: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._resume = resume
        self._on_end = on_end
        self._of_stream: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        return len(self._tasks)

    def begin(self, queued: QueuedCommand, unfolded: NotFolded) -> None:
        """Let a command wait."""
        if self.count >= MAX_WAITS or self._of_stream[unfolded.stream] >= MAX_WAITS_OF_STREAM:
            fail([queued], Overloaded())
            return
        self._of_stream[unfolded.stream] += 1
        task = asyncio.create_task(self._wait(queued, unfolded))
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, unfolded.stream))

    async def close(self) -> None:
        """Stop the folds, and keep the states that they have reached."""
        await self._folder.close()

    async def _wait(self, queued: QueuedCommand, unfolded: NotFolded) -> None:
        fold, deadline = self._folder.fold(unfolded), queued.request.deadline
        timeout = None if deadline is None else deadline - perf_counter()
        # Neither future is cancelled: the fold continues for other commands, and the result is the caller's.
        ends: list[asyncio.Future[Any]] = [fold, queued.result]
        await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not fold.done():
            fail([queued], DeadlinePassed())
        elif error := fold.exception():
            fail([queued], error)
        else:
            queued.folded[unfolded.stream] = fold.result()
            self._resume(queued)

    def _end(self, stream: str, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._of_stream -= Counter([stream])
        self._on_end()


def merge_folded(batch: Sequence[QueuedCommand]) -> dict[str, FoldedState]:
    """Return the latest of the states that were folded for the commands."""
    merged: dict[str, FoldedState] = {}
    for queued in batch:
        for stream, folded in queued.folded.items():
            if stream not in merged or merged[stream].version < folded.version:
                merged[stream] = folded
    return merged
