"""The events of one aggregate, from its own subject, in slices that its replay can afford."""

from collections import deque

from contracts.envelope import RecordedEvent
from projector.ports import AggregateReader

MAX_SLICE = 100
"""Events in one write, at most: Redis serves nobody else meanwhile, and takes up to 0.1 ms for each."""
FOLD_TIME = 0.005
"""Seconds that the fold of a slice may take; one event at least is folded."""


class ReplicaBehind(Exception):
    """The server that answered lacks messages that the leader of the stream has."""


class EventSlices:
    """Reads one aggregate's events ahead.

    Args:
        reader: of the aggregate.
        stream: its name, for errors.
    """

    def __init__(self, reader: AggregateReader, stream: str) -> None:
        self._reader = reader
        self._stream = stream
        self._events: deque[RecordedEvent] = deque()
        """Events that were read and are not applied."""
        self._size = MAX_SLICE

    async def seek(self, version: int) -> None:
        """Continue with a version, or before it."""
        self._events.clear()
        await self._reader.seek(version)

    async def read_after(self, version: int) -> bool:
        """Read the events after a version; return False if there are none up to the end of the subject.

        Raises:
            ReplicaBehind: the events cannot be read to their end now.
        """
        ended = False
        while True:
            while self._events and self._events[0].version <= version:
                self._events.popleft()
            if self._events:
                return True
            if (batch := await self._reader.read_batch()) is not None:
                self._events.extend(sorted(batch, key=lambda event: event.version))
            elif await self._reader.has_ended():
                return False
            elif ended:
                raise ReplicaBehind(f"{self._stream} cannot be read beyond version {version}")
            else:  # an event may have been published since the batch was read
                ended = True

    def take(self) -> list[RecordedEvent]:
        """Return the next slice of the events that `read_after` has read."""
        return [self._events[at] for at in range(min(self._size, len(self._events)))]

    def adapt_size(self, events: int, seconds: float) -> None:
        """Choose the size of the next slices by how long the fold of one took."""
        affordable = int(FOLD_TIME * max(events, 1) / max(seconds, 1e-9))
        self._size = max(1, min(MAX_SLICE, 2 * self._size, affordable))
