"""Admission: refuses commands that would wait too long for their commit, before they are queued.

How it works. A command waits for the commit under way and for the batches ahead of it, and then takes part in
a commit of its own. Each commit is expected to take as long as the shorter of the last two, so that a single
slow one does not count, and at least as long as the one under way has taken already. A command is refused if
its own commit is expected to begin after its deadline, or later than MAX_QUEUE_TIME; while commits succeed
but take longer than that, it may wait for one of them, up to MAX_TURN_TIME. A command whose commit begins in
time is admitted although the commit may end after its deadline: its effect is then certain, and a repetition
gets the answer.

A commit after an idle time is a probe, which shows whether the store is fast again. Commands that arrive
before it or in its first PROBE_TIME are queued; if it has not ended by then, `recheck` refuses those that
would wait too long for the next one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from command_server.kernel.outcomes import Overloaded
from command_server.kernel.ports import StoreConflict

MAX_QUEUE_TIME = 1.0
"""Reject new commands with OVERLOADED if they would wait longer than this for their commit (seconds)."""
MAX_TURN_TIME = 2.5
"""Seconds that a command may wait for its commit while each commit takes so long."""
PROBE_TIME = 0.2
"""Seconds of a commit after an idle time during which the duration of earlier commits does not count."""
UNKNOWN_WAIT = 1.0
"""Hint for callers while a commit takes longer than any estimate (seconds)."""
MIN_HINT = 0.02
HINT_RATIO = 0.75
"""Part of the maximum wait that is left when a caller comes back as hinted."""
BATCHING_RATIO = 0.05
MIN_BATCHING_PAUSE = 0.02
"""The pause before a commit, as a part of its expected duration; none if it would be shorter than this. The
callers that the last commit has answered join the next one, instead of waiting for the one after it."""
SLACK = 0.05
"""Seconds by which a queued command may exceed its limits before it is refused after all."""


class Admission:
    """The measured duration of commits, and the decision that follows from it.

    Args:
        clock: returns seconds; the clock of `Request.arrived_at` and `Request.deadline`.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._last = self._expected = 0.0
        self._began_at: float | None = None
        self._has_written = True
        self._queue_time = MAX_QUEUE_TIME
        """Seconds that a command may wait for its commit."""
        self._probe_until = 0.0
        self._was_idle = True

    def mark_idle(self) -> None:
        """Make the next commit a probe."""
        self._was_idle = True

    @contextmanager
    def measure_commit(self) -> Iterator[None]:
        """Measure a commit, also one that fails, unless others were in its way; one at a time."""
        self._began_at = began_at = self._clock()
        self._probe_until = began_at + PROBE_TIME if self._was_idle else 0.0
        self._has_written, self._was_idle = True, False
        try:
            yield
        except StoreConflict:  # says nothing about the speed of the store
            raise
        except BaseException:
            self._end_commit(began_at)
            self._queue_time = MAX_QUEUE_TIME
            raise
        else:
            self._end_commit(began_at)
            turn = self._expected + self.compute_batching_pause()
            self._queue_time = max(MAX_QUEUE_TIME, min(MAX_TURN_TIME, turn))
        finally:
            self._began_at = None

    def _end_commit(self, began_at: float) -> None:
        if self._has_written:
            duration = self._clock() - began_at
            self._expected, self._last = min(duration, self._last), duration

    def compute_batching_pause(self) -> float:
        """Return the seconds for which the next commit waits for more commands; 0 unless commits are slow."""
        seconds = BATCHING_RATIO * self._expected
        return seconds if seconds >= MIN_BATCHING_PAUSE else 0.0

    def ignore_commit(self) -> None:
        """Do not count the commit under way: it writes nothing, so others will take longer."""
        self._has_written = False

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
            Overloaded: it would wait too long.
        """
        if self._began_at is None and oldest is None:
            return
        now = self._clock()
        wait = self._estimate_wait(now) + batches_ahead * self._estimate_commit_time(now)
        max_wait = self._limit_wait(now, deadline)
        if wait > max_wait:
            raise Overloaded(_compute_hint(wait, max_wait))
        if oldest is not None and arrived_at - oldest > self._queue_time:
            raise Overloaded(UNKNOWN_WAIT)

    def recheck(self, arrived_at: float, deadline: float | None) -> None:
        """Check that a queued command may wait for the commit under way.

        Raises:
            Overloaded: it would wait too long.
        """
        now = self._clock()
        wait, max_wait = self._estimate_wait(now), self._limit_wait(arrived_at, deadline)
        if wait and now + wait - arrived_at > max_wait + SLACK:
            raise Overloaded(_compute_hint(wait, max_wait))

    def compute_pending_hint(self, arrived_at: float, deadline: float) -> float:
        """Return the seconds after which the caller of a command in the commit under way should repeat it.

        Args:
            arrived_at: the arrival of the command.
            deadline: its deadline, which is near.
        """
        if wait := self._estimate_wait(self._clock()):
            return _compute_hint(wait, self._limit_wait(arrived_at, deadline))
        return UNKNOWN_WAIT

    def _estimate_commit_time(self, now: float) -> float:
        if self._began_at is None:
            return self._expected
        return max(0.0 if now < self._probe_until else self._expected, now - self._began_at)

    def _estimate_wait(self, now: float) -> float:
        """Return the seconds until the next commit is expected to begin; 0 if there is no estimate."""
        if self._began_at is None or now < self._probe_until:
            return 0.0
        rest = self._began_at + self._expected - now
        return rest + self.compute_batching_pause() if rest > 0 else 0.0

    def _limit_wait(self, now: float, deadline: float | None) -> float:
        """Return the seconds that a command may wait for its commit from now on."""
        return self._queue_time if deadline is None else min(self._queue_time, max(0.0, deadline - now))


def _compute_hint(wait: float, max_wait: float) -> float:
    """Return a hint that brings the caller back as soon as it would be admitted, with a reserve."""
    return max(wait - HINT_RATIO * max_wait, MIN_HINT)
