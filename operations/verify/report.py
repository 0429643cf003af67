"""What was found, and how it is told: a line for each check, then the findings."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

CHECKS = {
    "events": ("{events:,} in {streams:,} streams", "gapless"),
    "outbox": ("{outbox:,} rows, {pending:,} pending", "each of an event"),
    "requests": ("{requests:,} accepted", "their receipts name what there is"),
    "snapshots": ("{snapshots:,} compared, {skipped:,} of other code passed over", "equal to the fold"),
    "stream": ("{messages:,} messages", "every event once and in order, nothing else"),
    "checkpoints": ("{projections:,} projections", "ready, none beyond the stream's end"),
    "views": ("{views:,} views", "equal to the fold"),
    "indexes": ("{indexes:,} entries in {indexes sets:,} indexes", "exactly those of the views"),
    "counters": ("{counters:,} counters in {counter keys:,} keys", "equal to the sums"),
    "event_counters": (
        "{event counters:,} counters in {event counter keys:,} keys",
        "equal to the sums over the events",
    ),
    "history": ("{history:,} entries", "one for each event"),
    "sagas": ("{sagas:,} sagas, {steps:,} steps", "all heard, each step and its effect once"),
    "change_feeds": ("{change_feeds:,} entries in {change_feeds sets:,} feeds", "exactly those of the views"),
}
"""What is checked: what is counted of it, and what is said where nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be."""

    check: str
    """One of CHECKS."""
    subject: str
    """For instance `view ordering.order o-17`."""
    text: str
    waits: bool = False
    """Whether it may yet come right by itself: something is behind."""
    changes: bool = False
    """Whether it could not be seen for certain, because the thing changed while it was looked at."""


@dataclass
class Report:
    """Everything that was counted and found.

    Args:
        shown: how many findings of each check are kept; the others are counted.
    """

    shown: int = 20
    counted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be compared, and why; no drift."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    def add(self, problem: Problem) -> None:
        """Report a problem."""
        self.found[problem.check] += 1
        if self.found[problem.check] <= self.shown:
            self.problems.append(problem)

    def add_all(self, problems: Iterable[Problem]) -> None:
        """Report several."""
        for problem in problems:
            self.add(problem)

    def take(self, other: "Report") -> None:
        """Report all that another report does, which shows as many findings."""
        self.counted.update(other.counted)
        self.notes += other.notes
        self.add_all(other.problems)
        for check, count in other.found.items():
            self.found[check] += max(count - other.shown, 0)

    def page(self) -> str:
        """Return it for people."""
        lines = [f"{check:14}  {self._line(check)}" for check in CHECKS]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"{problem.subject}: {problem.text}" for problem in self.problems]
        if hidden := self.found.total() - len(self.problems):
            lines.append(f"and {hidden:,} more findings; --findings shows more of them")
        return "\n".join(lines)

    def json(self) -> str:
        """Return it for machines: one object."""
        return json.dumps(
            {
                "clean": self.clean,
                "counted": dict(self.counted),
                "found": dict(self.found),
                "notes": self.notes,
                "findings": [
                    {"check": problem.check, "subject": problem.subject, "text": problem.text}
                    for problem in self.problems
                ],
            },
            ensure_ascii=False,
        )

    def _line(self, check: str) -> str:
        counts, fine = CHECKS[check]
        found = self.found[check]
        verdict = f"{found:,} finding{'s' if found > 1 else ''}" if found else fine
        return f"{counts.format_map(self.counted)}: {verdict}"
