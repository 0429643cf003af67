"""The retry policy for failed events, and the schedule of this process's retries.

How it works. `RetryPolicy.park` turns a failure into the record that is stored with the view: attempts so
far, and the time of the next one, after a pause that doubles. After the last attempt the aggregate stays
parked and has no next time. `RetrySchedule` holds this process's records that are still to be retried; the
replayer takes those that are due. The schedule is only a copy: each session loads it again from the store.
"""

import asyncio
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf

from projector.records import Parked
from runtime.backoff import compute_pause

MAX_ERROR_LENGTH = 500


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses, a failed event is retried.

    Args:
        attempts: the number of attempts, the first included, before an aggregate stays parked.
        first_pause: the longest pause after the first attempt, in seconds; it doubles with each attempt.
    """

    attempts: int = 6
    first_pause: float = 1.5

    def park(self, stream: str, version: int, error: Exception, previous: Parked | None, now: int) -> Parked:
        """Return the record of another failure.

        Args:
            stream: of the aggregate.
            version: of the event that cannot be applied.
            error: the cause.
            previous: the record of earlier failures. It counts only if it is about the same version.
            now: in milliseconds since 1970.
        """
        if previous is not None and previous.version != version:
            previous = None
        attempts = previous.attempts + 1 if previous else 1
        final = attempts >= self.attempts
        return Parked(
            stream=stream,
            version=version,
            error=f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH],
            since=previous.since if previous else now,
            attempts=attempts,
            next_attempt=None if final else now + self._compute_pause(attempts),
            state="parked" if final else "retrying",
        )

    def wait_for_events(self, stream: str, version: int, error: Exception, now: int) -> Parked:
        """Return the record of an aggregate whose event of this version is missing: read its stream at once.

        It is no attempt. If the stream lacks the event too, the replay fails, and that is the first one.
        """
        error_text = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
        return Parked(stream, version, error_text, since=now, attempts=0, next_attempt=now, state="retrying")

    def _compute_pause(self, attempts: int) -> int:
        """Return the pause after this many attempts, in milliseconds."""
        return int(1000 * compute_pause(attempts - 1, self.first_pause, inf))


RETRY_POLICY = RetryPolicy()


class RetrySchedule:
    """The parked aggregates that this process has to replay."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when an aggregate is added."""
        self._records: dict[str, Parked] = {}

    def clear(self) -> None:
        self._records.clear()

    def add(self, view_id: str, parked: Parked) -> None:
        """Add or replace an aggregate's record; one that has no attempts left is removed."""
        self._records.pop(view_id, None)
        if parked.state == "retrying":
            self._records[view_id] = parked
            self.changed.set()

    def take_due(self, now: int, limit: int, active: Container[str] = ()) -> Sequence[tuple[str, Parked]]:
        """Remove and return aggregates that are due and not active, the longest due first.

        Args:
            now: in milliseconds since 1970.
            limit: the number of aggregates, at most.
            active: the ids of aggregates that are replayed already.
        """
        waiting = [each for each in self._list_waiting(active) if (each[1].next_attempt or 0) <= now]
        due = nsmallest(max(0, limit), waiting, key=lambda each: each[1].next_attempt or 0)
        for view_id, _ in due:
            del self._records[view_id]
        return due

    def seconds_until_due(self, now: int, active: Container[str] = ()) -> float:
        """Return the time until an aggregate that is not active is due; infinite if there is none."""
        times = (parked.next_attempt or 0 for _, parked in self._list_waiting(active))
        return (min(times, default=inf) - now) / 1000

    def _list_waiting(self, active: Container[str]) -> Iterable[tuple[str, Parked]]:
        return ((view_id, parked) for view_id, parked in self._records.items() if view_id not in active)
