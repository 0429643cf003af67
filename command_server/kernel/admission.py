"""Admission: refuses commands that could not be answered in time, before they are queued.

How it works. A command waits for the commit under way and for the batches ahead of it, and then takes part in
a commit of its own. Each commit is expected to take as long as the shorter of the last two, so that a single
slow one does not count, and at least as long as the one under way has taken already. A command is refused if
its answer is expected after its deadline, or if it would wait longer than MAX_QUEUE_TIME before its own
commit; without that bound, each of many callers would be answered just too late. While nothing is queued or
committed, a command is always admitted: its commit shows whether the store is fast again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from command_server.kernel.outcomes import Overloaded

MAX_QUEUE_TIME = 1.0
"""Reject new commands with OVERLOADED if they would wait longer than this for their commit (seconds)."""


class Admission:
    """The measured duration of commits, and the decision that follows from it.

    Args:
        clock: returns seconds; the clock of `Request.arrived_at` and `Request.deadline`.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._last = self._expected = 0.0
        self._began_at: float | None = None

    @contextmanager
    def measure_commit(self) -> Iterator[None]:
        """Measure a commit, whether it succeeds or not; one at a time."""
        self._began_at = began_at = self._clock()
        try:
            yield
        finally:
            duration, self._began_at = self._clock() - began_at, None
            self._expected, self._last = min(duration, self._last), duration

    def expect_commit_time(self) -> float:
        """Return the seconds that a commit is expected to take."""
        return max(self._expected, self._measure_elapsed(self._clock()))

    def _measure_elapsed(self, now: float) -> float:
        """Return the seconds that the commit under way has taken; 0 if there is none."""
        return 0.0 if self._began_at is None else now - self._began_at

    def check(
        self, arrived_at: float, deadline: float | None, batches_ahead: int, oldest: float | None
    ) -> None:
        """Check that a command can be queued now.

        Args:
            arrived_at: the arrival of the command.
            deadline: its deadline; None if it has none.
            batches_ahead: the number of full batches that are queued.
            oldest: the arrival of the oldest queued command; None if there is none.

        Raises:
            Overloaded: it would be answered too late.
        """
        if self._began_at is None and oldest is None:
            return
        now = self._clock()
        elapsed = self._measure_elapsed(now)
        commit_time = max(self._expected, elapsed)
        wait = batches_ahead * commit_time
        if self._began_at is not None:
            wait += commit_time - elapsed
        if wait > MAX_QUEUE_TIME:
            # Back before the wait is over: half of the time that it may then wait for its commit is left.
            raise Overloaded(wait - MAX_QUEUE_TIME / 2)
        if oldest is not None and arrived_at - oldest > MAX_QUEUE_TIME:
            raise Overloaded(max(commit_time, MAX_QUEUE_TIME))
        if deadline is not None and now + wait + commit_time > deadline:
            raise Overloaded(max(wait, commit_time))
