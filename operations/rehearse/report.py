"""The report of `diptych rehearse`: how much was compared, and the differences by kind and field."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from runtime.process.terminal import escape

MAX_EXAMPLES = 10
"""Examples of the differences in one field that a report keeps."""

LINES = {
    "events": ("{events:,} in {streams:,} streams", "each is decoded and applied"),
    "states": ("{states:,} snapshots", "equal to the fold"),
    "views": ("{views:,} views", "equal to the fold"),
    "entries": ("{entries:,} index entries", "those of the views"),
    "contributions": ("{contributions:,} contributions to counters", "those of the views"),
    "history": ("{history:,} entries", "those of the events"),
    "sagas": ("{sagas:,} instances", "each can be read, and has its state and status"),
    "steps": ("{steps:,} steps", "each is sent"),
    "timers": ("{timers:,} timers", "each is set"),
    "commands": ("{commands:,} requests of sagas", "decided as they were"),
}
"""Every kind of difference: the template of its counts, and the verdict if there is none."""


@dataclass(frozen=True)
class Difference:
    """Something that the installed code makes of the events otherwise than it is stored."""

    kind: str
    """One of LINES."""
    field: str
    """The field in its state, view or saga: `<name>.<field>`, for instance `ordering.order.status`."""
    subject: str
    """`<stream or view> version <version>`."""
    text: str


@dataclass
class Report:
    """Counts and differences. Reports of parts of the events add up."""

    counts: Counter[str] = field(default_factory=Counter)
    """Numbers of compared items, by the names in LINES."""
    differences: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Numbers of differences, by kind and field."""
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """The first differences, by kind and field."""
    notes: Counter[str] = field(default_factory=Counter)
    """What could not be compared, with the number of cases; a note is no difference."""

    def add(self, difference: Difference) -> None:
        key = (difference.kind, difference.field)
        self.differences[key] += 1
        examples = self.examples.setdefault(key, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(f"{difference.subject}: {difference.text}")

    def merge(self, other: "Report") -> None:
        self.counts.update(other.counts)
        self.differences.update(other.differences)
        self.notes.update(other.notes)
        for key, examples in other.examples.items():
            kept = self.examples.setdefault(key, [])
            kept += examples[: MAX_EXAMPLES - len(kept)]

    def find_unaccepted(self, accepted: Collection[str]) -> list[tuple[str, str]]:
        """Return the kinds and fields with differences whose fields are not accepted."""
        return [key for key in sorted(self.differences) if key[1] not in accepted]

    def to_text(self, accepted: Collection[str] = ()) -> str:
        """Return the report for people, several lines."""
        return "\n".join(escape(line) for line in self._list_lines(accepted))

    def _list_lines(self, accepted: Collection[str]) -> Iterator[str]:
        for kind, (counts, verdict) in LINES.items():
            number = sum(count for (each, _), count in self.differences.items() if each == kind)
            result = f"{number:,} difference{'s' if number > 1 else ''}" if number else verdict
            yield f"{kind:13}  {counts.format_map(self.counts)}: {result}"
        for note, number in sorted(self.notes.items()):
            yield f"note: {number:,} {note}"
        for (kind, name), number in sorted(self.differences.items()):
            suffix = " (accepted)" if name in accepted else ""
            yield f"{kind} {name}: {number:,}{suffix}"
            yield from (f"  {example}" for example in self.examples[kind, name])

    def to_json(self, accepted: Collection[str] = ()) -> str:
        """Return the report for programs, one JSON object."""
        return json.dumps(
            {
                "equal": not self.find_unaccepted(accepted),
                "compared": dict(self.counts),
                "differences": [
                    {
                        "kind": kind,
                        "field": name,
                        "count": number,
                        "accepted": name in accepted,
                        "examples": self.examples[kind, name],
                    }
                    for (kind, name), number in sorted(self.differences.items())
                ],
                "notes": [{"text": note, "count": number} for note, number in sorted(self.notes.items())],
            },
            ensure_ascii=False,
        )
