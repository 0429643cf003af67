"""The retry policy for failed events, and the schedule of this process's retries.

How it works. `RetryPolicy.park` turns a failure into the record that is stored with the view: attempts so
far, and the time of the next one, after a pause that doubles. After the last attempt the aggregate stays
parked and has no next time. A projector whose code is not among those that failed makes one more attempt:
the failing one was too old to know the event, or had a fault. `RetrySchedule` holds this process's records
that are still to be retried; the replayer takes those that are due. The schedule is only a copy: each session
loads it again from the store.
"""

import asyncio
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf

from msgspec.structs import replace

from contracts.envelope import RecordedEvent
from projector.records import Parked
from runtime.backoff import compute_pause
from runtime.process.error_place import find_place

MAX_ERROR_LENGTH = 500
CALLER = "projector.projection"
"""The module that calls handlers."""
MAX_CLOCK_OFFSET = 2_000
"""Milliseconds by which an event's record time, by PostgreSQL's clock, may be later than its commit, by
Redis's: a second between the clocks, which health checks allow, and a second that a decision time may be
ahead (ADR 21)."""
MAX_CODES = 8
"""Codes in a record. Two releases that share the partitions in turn do not try for ever."""


def compute_stale_since(failed: RecordedEvent | None, now: int) -> int:
    """Return `Parked.stale_since` by the event that cannot be applied; 0 if it is missing or in the future.

    Args:
        failed: the event.
        now: in milliseconds since 1970.
    """
    recorded_at = int(failed.recorded_at.timestamp() * 1000) if failed else 0
    return max(0, recorded_at - MAX_CLOCK_OFFSET) if recorded_at <= now + MAX_CLOCK_OFFSET else 0


def make_due(parked: Parked) -> Parked:
    """Return a record that is due now, by any clock, with all of its attempts."""
    return replace(parked, attempts=0, next_attempt=0, state="retrying")


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses, a failed event is retried.

    Args:
        attempts: the number of attempts, the first included, before an aggregate stays parked.
        first_pause: the longest pause after the first attempt, in seconds; it doubles with each attempt.
        code: identifies the code of this projector; empty if that is unknown.
    """

    attempts: int = 6
    first_pause: float = 1.5
    code: str = ""

    def park(
        self,
        stream: str,
        version: int,
        error: Exception,
        previous: Parked | None,
        now: int,
        stale_since: int = 0,
    ) -> Parked:
        """Return the record of another failure.

        Args:
            stream: of the aggregate.
            version: of the event that cannot be applied.
            error: the cause.
            previous: the record of earlier failures. It counts only if it is about the same version.
            now: in milliseconds since 1970.
            stale_since: as in `Parked`; 0 if it is unknown.
        """
        if previous is not None and previous.version != version:
            stale_since = stale_since or previous.stale_since
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
            stale_since=(previous.stale_since if previous else 0) or stale_since,
            tried_by=self._add_code(previous.tried_by if previous else ()),
            place=find_place(error, CALLER),
        )

    def _add_code(self, codes: tuple[str, ...]) -> tuple[str, ...]:
        if not self.code:
            return codes
        return (*(code for code in codes if code != self.code), self.code)[-MAX_CODES:]

    def must_retry(self, parked: Parked) -> bool:
        """Return whether this projector has to retry an aggregate, at its time or at once."""
        return parked.state == "retrying" or (bool(self.code) and self.code not in parked.tried_by)

    def wait_for_events(
        self, stream: str, version: int, error: Exception, now: int, stale_since: int = 0
    ) -> Parked:
        """Return the record of an aggregate whose event of this version is missing: read its stream at once.

        It is no attempt. If the stream lacks the event too, the replay fails, and that is the first one.
        """
        error_text = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
        return Parked(
            stream,
            version,
            error_text,
            since=now,
            attempts=0,
            next_attempt=now,
            state="retrying",
            stale_since=stale_since,
        )

    def _compute_pause(self, attempts: int) -> int:
        """Return the pause after this many attempts, in milliseconds."""
        return int(1000 * compute_pause(attempts - 1, self.first_pause, inf))


RETRY_POLICY = RetryPolicy()


class RetrySchedule:
    """The parked aggregates that this process has to replay.

    Args:
        must_retry: returns whether it has to, by the record.
    """

    def __init__(self, must_retry: Callable[[Parked], bool] = RETRY_POLICY.must_retry) -> None:
        self._must_retry = must_retry
        self.changed = asyncio.Event()
        """Set when an aggregate is added."""
        self._records: dict[str, Parked] = {}

    def clear(self) -> None:
        self._records.clear()

    def add(self, view_id: str, parked: Parked) -> None:
        """Add or replace an aggregate's record; one that this process need not retry is removed."""
        self._records.pop(view_id, None)
        if self._must_retry(parked):
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
