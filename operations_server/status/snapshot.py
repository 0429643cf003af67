"""One reading of the whole system. A part that could not be read has an error in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from operations_server.status.health_checks import ProcessHealth
from operations_server.status.reading import ReadFailed
from operations_server.status.states import (
    OutboxState,
    PartitionState,
    ProjectionState,
    ReadModelState,
    SagaState,
    StreamState,
)
from process_manager.queries.saga_records import SagaCounts
from runtime.process_reports.health import Health

Partitions = Mapping[str, Mapping[int, PartitionState]]
"""The partitions of each projection, by its name and their numbers."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the system at about one moment."""

    read_at: datetime
    views: Sequence[View]
    """Of the projections of this process's contexts."""
    saga_names: Sequence[str]
    """The sagas of this process's contexts."""
    processes: Sequence[ProcessHealth]
    outbox: OutboxState | ReadFailed
    stream: StreamState | ReadFailed
    read_model: ReadModelState | ReadFailed
    sagas: SagaState | ReadFailed
    partitions: Partitions | ReadFailed
    health: Health
    """Of the processes' reports."""
    key_ring_error: str

    @property
    def saga_contexts(self) -> Sequence[str]:
        """The contexts that have sagas."""
        return sorted({name.partition(".")[0] for name in self.saga_names})

    def list_saga_counts(self) -> list[tuple[str, SagaCounts]]:
        """Return the numbers of each saga's instances, also of sagas without any."""
        counts = {} if isinstance(self.sagas, ReadFailed) else self.sagas.counts
        none = SagaCounts(0, 0, 0, 0)
        return [(name, counts.get(name, none)) for name in sorted({*self.saga_names, *counts})]

    def compute_progress(self, projection: str) -> float:
        """Return the share of the stream that a projection has read, 0 to 1; 1 if it is ready."""
        if isinstance(self.read_model, ReadFailed):
            return 0.0
        return self._compute_progress(self.read_model.projections[projection])

    def compute_kept_progress(self) -> Mapping[tuple[str, str], float]:
        """Return the same of the generations beside the serving ones, by projection and generation."""
        if isinstance(self.read_model, ReadFailed):
            return {}
        return {names: self._compute_progress(state) for names, state in self.read_model.kept.items()}

    def _compute_progress(self, state: ProjectionState) -> float:
        if state.ready:
            return 1.0
        epoch, last = self._read_end()
        read = sum(sequence for each, sequence in state.checkpoints.values() if each == epoch)
        return min(1.0, read / (last * PARTITIONS)) if last else 0.0

    def _read_end(self) -> tuple[str, int]:
        """Return the epoch and the last sequence of the stream, as far as one of the stores tells."""
        if not isinstance(self.stream, ReadFailed):
            return self.stream.epoch, self.stream.last_sequence
        if not isinstance(self.outbox, ReadFailed):
            return self.outbox.epoch, self.outbox.sequence
        return "", 0
