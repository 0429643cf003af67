"""The state of one aggregate, folded by the installed code, against the stored snapshot."""

from collections.abc import Sequence

from command_server.kernel.context import AggregateType
from command_server.kernel.ports import StoredEvent
from contracts.envelope import RecordedEvent
from contracts.personal_fields import list_personal_names
from operations.rehearse.fields import diff_json
from operations.rehearse.recorded import StoredState
from operations.rehearse.report import Difference, Report
from runtime.process.logs.repeated_errors import describe_error


class StateFold:
    """The fold of one stream.

    Args:
        aggregate: its aggregate.
        stream: its name.
        stored: the snapshot of the running release.
        report: receives the differences.
    """

    def __init__(self, aggregate: AggregateType, stream: str, stored: StoredState, report: Report) -> None:
        self._aggregate, self._stream, self._stored, self._report = aggregate, stream, stored, report
        self._state = aggregate.initial
        self._has_failed = False

    def apply(self, events: Sequence[RecordedEvent]) -> None:
        """Apply the next events; after one that fails, no more."""
        if self._has_failed:
            return
        aggregate, state = self._aggregate, self._state
        for event in events:
            try:
                state = aggregate.apply(state, StoredEvent(event.type, event.data))
                if event.version == self._stored.version and self._stored.state is not None:
                    self._compare(self._stored.state, aggregate.snapshots.encode(state))
            except Exception as error:  # any event may be one that this code cannot apply
                self._has_failed = True
                name, text = f"{self._aggregate.stream_type}.{type(error).__name__}", describe_error(error)
                subject = f"{self._stream} version {event.version}"
                self._report.add(Difference("events", name, subject, f"its state cannot be folded: {text}"))
                return
        self._state = state

    def _compare(self, stored: str, folded: str) -> None:
        self._report.counts["states"] += 1
        if stored == folded:
            return
        subject = f"{self._stream} version {self._stored.version}"
        names = list_personal_names(self._aggregate.descriptors)
        for each in diff_json(stored, folded, names):
            name = f"{self._aggregate.stream_type}.{each.path}"
            self._report.add(Difference("states", name, subject, f"{each.path} {each.text}"))
