"""The commands that wait for a batch, and the size of batches."""

from collections import deque
from time import perf_counter

from command_server.kernel.queued_command import QueuedCommand, is_awaited

MAX_BATCH_SIZE = 256
"""Commands per transaction."""
MAX_BATCH_BYTES = 512 * 1024
"""Bytes of the requests per transaction; the command that reaches it is the last one. Deciding on 256 of the
largest orders takes longer than PostgreSQL lets a transaction be idle."""


class CommandQueue:
    """New commands in order of arrival, and those that were in a batch already, which go first."""

    def __init__(self) -> None:
        self.new: deque[QueuedCommand] = deque()
        self.returned: deque[QueuedCommand] = deque()

    @property
    def oldest(self) -> float | None:
        """The arrival of the oldest new command; None if there is none."""
        return self.new[0].request.arrived_at if self.new else None

    def count(self) -> int:
        return len(self.returned) + len(self.new)

    def put(self, queued: QueuedCommand) -> None:
        self.new.append(queued)

    def put_back(self, queued: QueuedCommand) -> None:
        """Queue a command that was in a batch already."""
        self.returned.append(queued)

    def take_batch(self) -> list[QueuedCommand]:
        """Return the next batch without the commands whose caller has cancelled or timed out.

        While new commands are queued, those that were in a batch already take up to half of it.
        """
        batch: list[QueuedCommand] = []
        now, size = perf_counter(), 0
        while self.count() and len(batch) < MAX_BATCH_SIZE and size < MAX_BATCH_BYTES:
            has_half = len(batch) >= MAX_BATCH_SIZE // 2 or size >= MAX_BATCH_BYTES // 2
            takes_new = self.new and (has_half or not self.returned)
            queued = (self.new if takes_new else self.returned).popleft()
            if is_awaited(queued, now):
                batch.append(queued)
                size += queued.request.size
        return batch
