"""When an event that cannot be applied is tried again, and when only an operator can help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from projector.records import Parked
from runtime.backoff import pause_before

ERROR_LENGTH = 500


@dataclass(frozen=True)
class RetryPolicy:
    """When to try a failing event again.

    Args:
        attempts: how often an event is tried before its aggregate stays parked.
        first_pause: the longest pause after the first attempt, in seconds; it doubles with each attempt.
    """

    attempts: int = 6
    first_pause: float = 1.5

    def park(self, stream: str, version: int, error: Exception, before: Parked | None, now: int) -> Parked:
        """Return the record of another failure.

        Args:
            stream: of the aggregate.
            version: of the event that cannot be applied.
            error: what applying it failed with.
            before: the record of the failures before; those of another version do not count.
            now: in milliseconds since 1970.
        """
        known = before if before is not None and before.version == version else None
        attempts = known.attempts + 1 if known else 1
        final = attempts >= self.attempts
        return Parked(
            stream=stream,
            version=version,
            error=f"{type(error).__name__}: {error}"[:ERROR_LENGTH],
            since=known.since if known else now,
            attempts=attempts,
            next_attempt=None if final else now + self._pause(attempts),
            state="parked" if final else "retrying",
        )

    def _pause(self, attempts: int) -> int:
        """Return milliseconds."""
        return int(1000 * pause_before(attempts - 1, self.first_pause, inf))


RETRY_POLICY = RetryPolicy()


class RetrySchedule:
    """The aggregates that this process has to try again, and when."""

    def __init__(self) -> None:
        self._due: dict[str, Parked] = {}

    def reset(self, parked: Mapping[str, Parked]) -> None:
        """Forget all, then remember these, by view id."""
        self._due.clear()
        for view_id, record in parked.items():
            self.remember(view_id, record)

    def remember(self, view_id: str, parked: Parked) -> None:
        """Note when an aggregate is due; never, where only an operator can help."""
        self.forget(view_id)
        if parked.state == "retrying":
            self._due[view_id] = parked

    def forget(self, view_id: str) -> None:
        """An aggregate is not to be tried again."""
        self._due.pop(view_id, None)

    def due(self, now: int, limit: int) -> Sequence[tuple[str, Parked]]:
        """Return some of the aggregates whose time has come; `now` in milliseconds since 1970."""
        ready = (item for item in self._due.items() if (item[1].next_attempt or 0) <= now)
        return list(islice(ready, limit))
