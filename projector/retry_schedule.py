"""The retry policy for failed events, and the schedule of this process's retries.

How it works. `RetryPolicy.park` turns a failure into the record that is stored with the view: attempts so
far, and the time of the next one, after a pause that doubles. After the last attempt the aggregate stays
parked and has no next time. `RetrySchedule` holds this process's records that are still to be retried.
Between batches the session retries those that are due. The schedule is only a copy: each session loads it
again from the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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

    def _compute_pause(self, attempts: int) -> int:
        """Return the pause after this many attempts, in milliseconds."""
        return int(1000 * compute_pause(attempts - 1, self.first_pause, inf))


RETRY_POLICY = RetryPolicy()


class RetrySchedule:
    """The parked aggregates that this process has to retry."""

    def __init__(self) -> None:
        self._records: dict[str, Parked] = {}

    def reset(self, parked: Mapping[str, Parked]) -> None:
        """Replace all records by these, by view id."""
        self._records.clear()
        for view_id, record in parked.items():
            self.add(view_id, record)

    def add(self, view_id: str, parked: Parked) -> None:
        """Add or replace an aggregate's record; one that has no attempts left is removed."""
        self.remove(view_id)
        if parked.state == "retrying":
            self._records[view_id] = parked

    def remove(self, view_id: str) -> None:
        self._records.pop(view_id, None)

    def list_due(self, now: int, limit: int) -> Sequence[tuple[str, Parked]]:
        """Return up to `limit` aggregates whose next attempt is due; `now` in milliseconds since 1970."""
        due = (item for item in self._records.items() if (item[1].next_attempt or 0) <= now)
        return list(islice(due, limit))
