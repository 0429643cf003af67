"""One view, folded by the installed code, against the view in Redis at the same version.

How it works. The events up to the version of the stored view are folded, and the result is compared with it:
the message by field, the index entries and the contributions to counters. History entries are compared event
by event. The events behind that version are folded as well, since the installed code has to apply them soon.
Whoever compares a view reads its events up to that version at least.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from contracts import streams
from contracts.envelope import RecordedEvent
from operations.rehearse.fields import diff_messages
from operations.rehearse.report import Difference, Report
from operations.rehearse.stored_views import Row, StoredView, parse_rows
from projector.projection import Projection, RenderedView
from runtime.process.logs.repeated_errors import describe_error

_encode_rows = msgspec.json.Encoder().encode

MAX_ROWS = 3
"""Index entries or contributions of a view that an example shows."""


class ViewFold:
    """The fold of one view.

    Args:
        projection: its projection.
        stream: its stream.
        stored: the view in Redis; None if it is not compared.
        report: receives the differences.
        skipped: the versions that it has stepped over.
    """

    def __init__(
        self,
        projection: Projection[Any],
        stream: str,
        stored: StoredView | None,
        report: Report,
        skipped: frozenset[int] = frozenset(),
    ) -> None:
        self._projection, self._stored, self._skipped = projection, stored, skipped
        self._report = report
        self.name = projection.view.projection
        self.view_id = streams.aggregate_id(stream)
        self._message = projection.view.message()
        self._version = 0
        self._has_failed = False
        self.history: dict[int, bytes] = {}
        """The entries to compare, by version; whoever compares them empties it."""

    def apply(self, events: Sequence[RecordedEvent]) -> None:
        """Apply the next events; after one that fails, no more."""
        target = self._stored.version if self._stored else 0
        first = [event for event in events if event.version <= target]
        rendered = self._fold(first)
        if self._stored and rendered and self._version == target:
            self._compare(self._stored, rendered)
        self._fold(events[len(first) :])

    def _fold(self, events: Sequence[RecordedEvent]) -> RenderedView[Any] | None:
        """Fold events; return the view after all of them."""
        if self._has_failed or not events:
            return None
        rendered, count, error = self._projection.fold(self._message, events, skipped=self._skipped)
        if rendered is not None:
            self._message, self._version = rendered.message, events[count - 1].version
            self._collect_history(rendered)
        if error is None:
            return rendered
        self._has_failed = True
        self._add_failure(events[count].version, error)
        return None

    def _add_failure(self, version: int, error: Exception) -> None:
        if self._stored and self._stored.parked_version == version:
            self._report.notes[f"aggregates are parked in {self.name} at an event that fails here, too"] += 1
            return
        text = f"{self.name} cannot apply it: {describe_error(error)}"
        self._add("events", type(error).__name__, version, text)

    def _collect_history(self, rendered: RenderedView[Any]) -> None:
        if self._stored and rendered.history_entries and not self._stored.is_archived:
            last = self._stored.version
            self.history.update((at, entry) for at, entry in rendered.history_entries if at <= last)

    def _compare(self, stored: StoredView, rendered: RenderedView[Any]) -> None:
        if stored.is_archived:
            self._report.counts["archived views"] += 1
            return
        self._report.counts["views"] += 1
        if stored.data != rendered.data:
            kind = self._projection.view.message
            for each in diff_messages(kind, stored.data or b"", rendered.data):
                self._add("views", each.path, stored.version, f"{each.path} {each.text}")
        self._compare_rows("entries", stored.entries, rendered.entries)
        self._compare_rows("contributions", stored.contributions, rendered.contributions)

    def _compare_rows(self, kind: str, stored: bytes | None, rendered: Sequence[Row]) -> None:
        """Compare index entries or contributions, whose order means nothing."""
        self._report.counts[kind] += len(rendered)
        if stored == _encode_rows(rendered):
            return
        rows, after = parse_rows(stored), Counter(map(_without_generation, rendered))
        if rows is None:
            self._add(kind, kind, self._version, "what is stored cannot be read")
            return
        before = Counter(map(_without_generation, rows))
        if before == after:
            return
        changes: dict[str, list[str]] = {}
        for sign, changed in (("-", before - after), ("+", after - before)):
            for key, *values in changed.elements():
                changes.setdefault(key.partition("/")[0], []).append(" ".join((sign + key, *values)))
        for name, texts in changes.items():
            shown = ", ".join(sorted(texts)[:MAX_ROWS]) + (", …" if len(texts) > MAX_ROWS else "")
            self._add(kind, name, self._version, shown)

    def compare_history(self, stored: Mapping[int, bytes], first: int) -> None:
        """Compare the collected entries with the stored ones, and forget them.

        Args:
            stored: the entries by version.
            first: the version before which entries have been removed.
        """
        folded, self.history = self.history, {}
        for version, entry in folded.items():
            if version < first and version not in stored:
                continue
            self._report.counts["history"] += 1
            if version not in stored:
                self._add("history", "history", version, "its history lacks the entry")
            elif stored[version] != entry:
                self._add("history", "history", version, "the entry differs")

    def _add(self, kind: str, name: str, version: int, text: str) -> None:
        subject = f"{self.name} {self.view_id} version {version}"
        self._report.add(Difference(kind, f"{self.name}.{name}", subject, text))


def _without_generation(row: Row) -> Row:
    """Return an entry or a contribution whose key is only its name and its values."""
    return row[0].partition("{")[2].removesuffix("}"), *row[1:]
