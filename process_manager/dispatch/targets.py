"""The services to which steps are sent: each has places of its own, and a breaker. Pure.

How it works:

- A target is one gRPC service. The steps being sent to it occupy its places, never those of another target.
- A call without an answer says little: its request may be at fault, or a connection was lost. After
  SILENT_CALLS of them in a row the target is silent. It then has one place, so one step at a time probes it,
  PROBE_INTERVAL after the last call that failed; all its other steps wait without being sent.
- Any answer ends that, a rejection too. The number of places then grows by one with each answer, as in TCP's
  slow start: a target that has come back gets its waiting steps within some round trips, not all at once.
- The silence also ends once no call was made for IDLE_TIME, because nothing is left to be sent or another
  process sends it. The target keeps its one place until it answers.
- A silent target gets more time to answer (SLOW_TIMEOUT) and keeps it until an answer takes less than
  CALL_TIMEOUT: a target that is slow rather than gone is served, slowly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PLACES = 32
"""Steps that are sent to one target at a time."""
SILENT_CALLS = 3
"""Consecutive calls without an answer after which a target is silent."""
PROBE_INTERVAL = 0.5
"""Seconds from a failed call to a silent target until the next one."""
CALL_TIMEOUT, SLOW_TIMEOUT = 5.0, 15.0
"""Seconds that a target has to answer: usually, and while it is silent or slow."""
IDLE_TIME = 10.0
"""Seconds without a call after which a target is no longer silent; steps are sent again after a second."""


def target_of(method: str) -> str:
    """Return the service of a method's path; empty if it is no path. `schema.TARGET` is the same in SQL."""
    return [*method.split("/", 2), ""][1]


@dataclass
class Target:
    """One service, as this process sees it. Times are those of `time.monotonic`."""

    name: str
    active: int = 0
    """Calls in progress."""
    error: str = ""
    """The error of the call that made it silent; empty while it answers."""
    silent_since: float = 0.0
    overflowed: bool = False
    """Whether steps have found no place in memory since the last poll."""
    _failures: int = 0
    _places: int = PLACES
    _slow: bool = False
    _probe_at: float = 0.0

    @property
    def silent(self) -> bool:
        return bool(self.error)

    @property
    def timeout(self) -> float:
        """Seconds that the next call has to be answered."""
        return SLOW_TIMEOUT if self.silent or self._slow else CALL_TIMEOUT

    def count_free(self, now: float) -> int:
        """Return the number of steps that may be sent now."""
        if self.silent and now < self._probe_at:
            return 0
        return max((1 if self.silent else self._places) - self.active, 0)

    def record_answer(self, seconds: float) -> bool:
        """Record an answer that took this long; return whether the target was silent."""
        was_silent, self.error, self._failures = self.silent, "", 0
        self._places = min(self._places + 1, PLACES)
        self._slow = seconds >= CALL_TIMEOUT
        return was_silent

    def record_silence(self, error: str, now: float) -> bool:
        """Record a call without an answer; return whether this makes the target silent."""
        self._failures += 1
        self._probe_at = now + PROBE_INTERVAL
        if self.silent or self._failures < SILENT_CALLS:
            return False
        self.error, self.silent_since, self._places = error, now, 1
        return True

    def forget_silence(self, now: float) -> bool:
        """Forget that the target is silent if no call of it is made any more; return whether it was."""
        if not self.silent or self.active or now < self._probe_at + IDLE_TIME:
            return False
        self.error, self._failures = "", 0
        return True


@dataclass
class Targets:
    """All targets of this process; one that has no entry has all its places."""

    _by_name: dict[str, Target] = field(default_factory=dict)

    def find(self, name: str) -> Target:
        return self._by_name.setdefault(name, Target(name))

    def list_silent(self) -> Mapping[str, Target]:
        return {name: target for name, target in self._by_name.items() if target.silent}

    def list_all(self) -> list[Target]:
        return list(self._by_name.values())
