"""The report of `diptych verify`: one line for each check, then the findings."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from operations.rendering.values import format_count
from operations.verify.model import Problem
from runtime.process.terminal import escape

CHECKS = {
    "events": ("{events:,} in {streams:,} streams", "versions without gaps"),
    "outbox": ("{outbox:,} rows, {pending:,} pending", "every row has its event"),
    "requests": ("{requests:,} accepted", "every receipt names existing versions"),
    "snapshots": ("{snapshots:,} compared, {skipped:,} of other code skipped", "equal to the fold"),
    "stream": (
        "{messages:,} messages, {archived messages:,} archived",
        "every event once and in order, nothing else",
    ),
    "checkpoints": ("{projections:,} projections", "ready, none beyond the end of the stream"),
    "views": ("{views:,} views, {archived views:,} archived", "equal to the fold"),
    "indexes": ("{indexes:,} entries in {indexes sets:,} indexes", "exactly those of the views"),
    "counters": (
        "{counters:,} counters in {counter keys:,} keys",
        "equal to the contributions of the views",
    ),
    "event_counters": (
        "{event counters:,} counters in {event counter keys:,} keys",
        "equal to the contributions of the events",
    ),
    "history": ("{history:,} entries, {archived entries:,} archived", "one for each event"),
    "sagas": (
        "{sagas:,} sagas ({archived sagas:,} with archived steps), {steps:,} steps",
        "every event consumed, every step taken once",
    ),
    "search": (
        "{search documents:,} documents in {search indexes:,} indexes",
        "those of the views",
    ),
    "change_feeds": ("{change_feeds:,} entries in {change_feeds sets:,} feeds", "exactly those of the views"),
}
"""Every check: the template of its counts, and the verdict if there are no findings."""


@dataclass(frozen=True)
class SkippedEvent:
    """An event that a projection or a saga steps over, because an operator said so."""

    consumer: str
    """`projection <name>` or `saga <name>`."""
    stream: str
    version: int
    reason: str
    subject: str
    """Of the operator's token."""
    time: datetime

    def to_text(self) -> str:
        who = f"{self.subject} at {self.time.astimezone(UTC).isoformat(timespec='seconds')}"
        return f"skipped: {self.consumer}: {self.stream}@{self.version}, by {who}: {self.reason}"


@dataclass
class Report:
    """Counts, findings and notes of all checks.

    Args:
        max_findings: findings of each check that are kept; the others are counted.
    """

    max_findings: int = 20
    counts: Counter[str] = field(default_factory=Counter)
    """Numbers of compared items, by the names in CHECKS."""
    findings: Counter[str] = field(default_factory=Counter)
    """Numbers of findings, by check."""
    problems: list[Problem] = field(default_factory=list)
    """The findings that are kept."""
    notes: list[str] = field(default_factory=list)
    """Items that could not be compared, with the reason; a note is no finding."""
    skipped: list[SkippedEvent] = field(default_factory=list)
    """Events that operators have had skipped. They are no findings."""

    @property
    def clean(self) -> bool:
        return not self.findings

    def add(self, problem: Problem) -> None:
        self.findings[problem.check] += 1
        if self.findings[problem.check] <= self.max_findings:
            self.problems.append(problem)

    def add_all(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem)

    def merge(self, other: "Report") -> None:
        """Add everything in another report that has the same `max_findings`."""
        self.counts.update(other.counts)
        self.notes += other.notes
        self.add_all(other.problems)
        for check, count in other.findings.items():
            self.findings[check] += max(count - other.max_findings, 0)

    def to_text(self) -> str:
        """Return the report for people, several lines."""
        lines = [f"{check:14}  {self._summarise(check)}" for check in CHECKS]
        if self.skipped:
            events = format_count(len(self.skipped), "event")
            lines.append(f"{'skipped':14}  {events}: left out by operators' acts")
        lines += [escape(event.to_text()) for event in self.skipped[: self.max_findings]]
        lines += [escape(f"note: {note}") for note in self.notes]
        lines += [escape(f"{problem.subject}: {problem.text}") for problem in self.problems]
        if hidden := self.findings.total() - len(self.problems):
            lines.append(f"and {hidden:,} more findings; --findings shows more of them")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the report for programs, one JSON object."""
        return json.dumps(
            {
                "clean": self.clean,
                "counted": dict(self.counts),
                "found": dict(self.findings),
                "notes": self.notes,
                "skipped": [{**asdict(event), "time": event.time.isoformat()} for event in self.skipped],
                "findings": [
                    {"check": problem.check, "subject": problem.subject, "text": problem.text}
                    for problem in self.problems
                ],
            },
            ensure_ascii=False,
        )

    def _summarise(self, check: str) -> str:
        counts, clean = CHECKS[check]
        findings = self.findings[check]
        verdict = f"{findings:,} finding{'s' if findings > 1 else ''}" if findings else clean
        return f"{counts.format_map(self.counts)}: {verdict}"
