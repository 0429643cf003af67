"""What a verification of the audit finds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

CHECKPOINTS = "checkpoints"
"""The record of findings about checkpoints themselves."""
REQUESTS = "requests"
"""The record of findings about answers to requests."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between what is recorded and what was."""

    record: str
    subject: str
    """The row, as people name it."""
    text: str
    checkpoint: int | None = None
    """The checkpoint that covers the row."""

    def to_text(self) -> str:
        sealed = f" (checkpoint {self.checkpoint})" if self.checkpoint else ""
        return f"{self.record}: {self.subject}: {self.text}{sealed}"

    def to_facts(self) -> Mapping[str, object]:
        return {
            "record": self.record,
            "subject": self.subject,
            "text": self.text,
            "checkpoint": self.checkpoint,
        }


@dataclass(slots=True)
class Report:
    """The findings of a verification, and how much was verified.

    Args:
        max_findings: of each record that are kept; the others are counted.
    """

    max_findings: int
    findings: list[Finding] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    """All findings by record."""
    sealed: Counter[str] = field(default_factory=Counter)
    """Rows that a checkpoint covers, by record."""
    events: int = 0
    unchained: int = 0
    """Events without a digest: an earlier release recorded them."""
    requests: int = 0
    checkpoints: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be verified, and why."""

    @property
    def is_clean(self) -> bool:
        return not self.found

    def add(self, record: str, subject: str, text: str, checkpoint: int | None = None) -> None:
        self.found[record] += 1
        if self.found[record] <= self.max_findings:
            self.findings.append(Finding(record, subject, text, checkpoint))

    def to_text(self) -> str:
        lines = [finding.to_text() for finding in self.findings]
        for record, count in self.found.items():
            if count > self.max_findings:
                lines.append(f"{record}: {count - self.max_findings:,} more")
        lines += self.notes
        sealed = ", ".join(f"{count:,} {record}" for record, count in self.sealed.items()) or "no rows"
        lines.append(f"{self.checkpoints:,} checkpoints over {sealed}")
        chained = f"{self.events - self.unchained:,} of {self.events:,} events in chains"
        lines.append(f"{chained}, {self.requests:,} answers to requests compared")
        total = sum(self.found.values())
        lines.append(f"{total:,} differences" if total else "no difference")
        return "\n".join(lines)

    def to_facts(self) -> Mapping[str, object]:
        return {
            "differences": dict(self.found),
            "findings": [finding.to_facts() for finding in self.findings],
            "notes": self.notes,
            "checkpoints": self.checkpoints,
            "sealed": dict(self.sealed),
            "events": self.events,
            "unchained_events": self.unchained,
            "requests": self.requests,
        }
