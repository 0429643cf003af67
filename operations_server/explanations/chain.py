"""The entries of one explanation: collected from several sources, each once, and brought into order. Pure."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from diptych.operations.v1.explanation_pb2 import Explanation

from operations_server.explanations.words import cut
from runtime.process.terminal import escape

MAX_ENTRIES = 400
"""Entries of an explanation; those between the first and the latest ones are omitted."""
FIRST_ENTRIES = 100
MAX_SUMMARY_LENGTH = 2_000

_RANKS = (
    Explanation.KIND_REFUSED,
    Explanation.KIND_ACCEPTED,
    Explanation.KIND_REJECTED,
    Explanation.KIND_EVENT,
    Explanation.KIND_ACT,
    Explanation.KIND_SAGA,
    Explanation.KIND_VIEW,
)
"""The order of entries of the same time: causes before effects."""
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, or a present state."""

    time: datetime
    kind: "Explanation.Kind.ValueType"
    text: str
    reference: str = ""
    depth: int = 0
    position: int = 0
    """The order among entries of the same time and kind."""


class Chain:
    """The entries around a subject.

    Args:
        until: the time after which nothing is included; None for no limit.
    """

    def __init__(self, until: datetime | None = None) -> None:
        self.until = until
        self.omitted = 0
        """Entries that were not read."""
        self.views_failed = False
        """Whether Redis could not be read, so that no further views are."""
        self._entries: dict[Hashable, Entry] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def includes(self, time: datetime) -> bool:
        """Return whether something of this time had happened by then."""
        return self.until is None or time <= self.until

    def add(self, key: Hashable, entry: Entry) -> None:
        """Add an entry, unless it happened too late, or the chain has one of this key."""
        if self.includes(entry.time):
            self._entries.setdefault(key, entry)

    def add_note(self, key: Hashable, entry: Entry) -> None:
        """Add an entry about the present state, whatever its time."""
        self._entries.setdefault(key, entry)

    def list_entries(self) -> list[Entry]:
        return sorted(
            self._entries.values(),
            key=lambda each: (each.time, _RANKS.index(each.kind), each.depth, each.position),
        )

    def to_message(self, subject: str, summary: str) -> Explanation:
        """Return the explanation, without the entries in the middle if there are too many."""
        entries: Sequence[Entry] = self.list_entries()
        excess = len(entries) - MAX_ENTRIES
        if excess > 0:
            entries = [*entries[:FIRST_ENTRIES], *entries[FIRST_ENTRIES + excess :]]
        return Explanation(
            subject=escape(subject),
            summary=escape(cut(summary, MAX_SUMMARY_LENGTH)),
            entries=[_to_message(entry) for entry in entries],
            omitted_entry_count=self.omitted + max(0, excess),
        )


def _to_message(entry: Entry) -> Explanation.Entry:
    """Return the message of an entry; texts of callers neither end its line nor move a cursor."""
    message = Explanation.Entry(
        kind=entry.kind,
        text=escape(cut(entry.text)),
        reference=escape(entry.reference),
        depth=entry.depth,
    )
    if entry.time > _EARLIEST:
        message.time.FromDatetime(entry.time.astimezone(UTC))
    return message
