"""Commands that the store will probably refuse: they run apart from all others, in a small part of the time.

A command whose data the store refuses fails its batch, which then runs again in parts. A caller that goes on
sending such commands would make that the rule. So a repetition of a refused command waits here, and so does
every command of a caller of whose commands many were refused lately. The writer takes one group of them at a
time, in a transaction of its own, and leaves the rest of the time to the batches; a group that fails is
divided. In addition, the answer to a refused command is late, so that a caller that waits for it before it
sends the next one cannot take more than SHARE of the time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

from command_server.kernel.admission import MAX_QUEUE_TIME
from command_server.kernel.batch import Request
from command_server.kernel.outcomes import Overloaded
from command_server.kernel.ports import RequestKey
from command_server.kernel.queued_command import QueuedCommand, drop_expired

SUSPICION = 30.0
"""Seconds after which a refused command, or a caller without further ones, is forgotten."""
MIN_REFUSED, REFUSED_RATIO = 2, 0.25
"""Refused commands, also as a part of the caller's commands, from which on all of its commands wait here."""
MAX_REFUSED = 1_000
"""Refused commands that are remembered."""
SHARE = 0.1
"""Part of the writer's time that the commands here may take while others wait."""
MAX_GROUP_SIZE = 32
"""Commands in one transaction: it is short, and so are those of its parts."""
MAX_DELAY = 1.0
"""Seconds by which the answer to a refused command is late at most."""
DEADLINE_MARGIN = 0.1
"""Seconds before its deadline at which it is answered at the latest."""


@dataclass(slots=True)
class _Record:
    """The commands of a caller that ended since the first was refused."""

    until: float
    """When it is forgotten."""
    refused: int = 0
    committed: int = 0

    @property
    def is_suspect(self) -> bool:
        total = self.refused + self.committed
        return self.refused >= MIN_REFUSED and self.refused >= REFUSED_RATIO * total


class Quarantine:
    """The commands that wait here, and those that were refused lately.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._refused: dict[RequestKey, float] = {}
        """When each was refused, the oldest first."""
        self._callers: dict[str, _Record] = {}
        self._groups: deque[list[QueuedCommand]] = deque()
        """The parts of groups that failed, in order of arrival."""
        self._waiting: deque[QueuedCommand] = deque()
        self._next_at = 0.0
        self._cost = 0.0
        """Seconds of the transactions that failed since the last command was refused."""
        self._answer_at = 0.0
        """When that command is answered."""

    def report(self, request: Request) -> float:
        """Remember a command that the store has refused; return the seconds by which to delay its answer."""
        now = self._clock()
        record = self._callers.setdefault(request.caller, _Record(now))
        record.until, record.refused = now + SUSPICION, record.refused + 1
        self._refused.pop(request.key, None)
        self._refused[request.key] = now
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        answer_at = max(now, self._answer_at) + self._cost * (1 - SHARE) / SHARE
        self._answer_at, self._cost = min(answer_at, now + MAX_DELAY), 0.0
        if request.deadline is None:
            return self._answer_at - now
        return max(0.0, min(self._answer_at, request.deadline - DEADLINE_MARGIN) - now)

    def includes(self, request: Request) -> bool:
        """Return whether a command has to wait here."""
        if not self._callers:
            return False
        self._forget()
        record = self._callers.get(request.caller)
        return record is not None and (record.is_suspect or request.key in self._refused)

    def note_committed(self, requests: Iterable[Request]) -> None:
        """Count commands that the store has taken, of callers of refused ones."""
        if self._callers:
            for request in requests:
                if record := self._callers.get(request.caller):
                    record.committed += 1

    def _forget(self) -> None:
        now = self._clock()
        while self._refused and now - next(iter(self._refused.values())) > SUSPICION:
            del self._refused[next(iter(self._refused))]
        for caller in [caller for caller, record in self._callers.items() if record.until <= now]:
            del self._callers[caller]

    def check(self) -> None:
        """Check that a command can be queued now.

        Raises:
            Overloaded: it would wait too long.
        """
        if self._waiting and self._clock() - self._waiting[0].request.arrived_at > MAX_QUEUE_TIME:
            raise Overloaded

    def put(self, queued: QueuedCommand) -> None:
        self._waiting.append(queued)

    def compute_pause(self) -> float | None:
        """Return the seconds until the next group may run; None if there is none."""
        return max(0.0, self._next_at - self._clock()) if self._groups or self._waiting else None

    def take_group(self) -> list[QueuedCommand]:
        """Return the next group, without the commands whose caller has cancelled or timed out."""
        if self._groups:
            return drop_expired(self._groups.popleft())
        size = min(len(self._waiting), MAX_GROUP_SIZE)
        return drop_expired([self._waiting.popleft() for _ in range(size)])

    def divide(self, group: Sequence[QueuedCommand]) -> None:
        """Queue the halves of a group that failed, in place of it."""
        middle = len(group) // 2
        self._groups.extendleft([list(group[middle:]), list(group[:middle])])

    def add_cost(self, seconds: float) -> None:
        """Add the time of a transaction that failed for one of its commands, or that looked for that one."""
        self._cost += seconds

    def leave_time(self, seconds: float) -> None:
        """Leave the next time to others, after a group that took these seconds."""
        self._next_at = self._clock() + seconds * (1 - SHARE) / SHARE
