"""The rows that the relay reads, and the parameters of its statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contracts.envelope import RecordedEvent, parse_metadata


@dataclass(frozen=True, slots=True)
class RelayState:
    """The row of `relay_state`."""

    incarnation: str
    """Identity of the database; replaced by every restore."""
    epoch: str
    """Epoch of the stream that `sequence` refers to; empty before the first stream."""
    sequence: int
    """The last sequence that is marked in the outbox."""


@dataclass(frozen=True, slots=True)
class TransactionSnapshot:
    """`pg_current_snapshot()`: the transactions that had ended at one moment."""

    xmin: int
    """All transactions with lower ids have ended, and their committed rows are visible."""
    xmax: int
    """The lowest transaction id that was not assigned yet."""


def get_state_columns(state: RelayState) -> tuple[str, str | None, int]:
    return state.incarnation, state.epoch or None, state.sequence


def get_mark_parameters(state: RelayState, positions: Sequence[int | None], last: int) -> Sequence[Any]:
    """Return the parameters of a statement that marks.

    Args:
        state: the expected state.
        positions: of the events at the following sequences; None for a foreign message.
        last: the last of these sequences.

    Raises:
        ValueError: the numbers of positions and sequences differ.
    """
    sequences: Sequence[int] = range(state.sequence + 1, last + 1)
    if len(positions) != len(sequences):
        raise ValueError(f"{len(positions)} events after {state.sequence} do not reach {last}")
    if None in positions:
        own = [place for place in zip(positions, sequences, strict=True) if place[0] is not None]
        positions, sequences = [position for position, _ in own], [sequence for _, sequence in own]
    return *get_state_columns(state), last, positions, sequences


def decode_state(row: Any) -> RelayState:
    incarnation, epoch, sequence, *_ = row
    return RelayState(str(incarnation), str(epoch or ""), sequence)


def decode_page(rows: Sequence[Any], limit: int, max_bytes: int) -> tuple[list[RecordedEvent], bool]:
    """Return the events, and whether one of the limits has ended the page."""
    events = [decode_event(row) for row in rows]
    return events, len(events) == limit or sum(len(event.data) for event in events) >= max_bytes


def decode_event(row: Any) -> RecordedEvent:
    stream, version, kind, data, recorded_at, position, metadata, *_ = row
    return RecordedEvent(stream, version, kind, data, recorded_at, position, parse_metadata(metadata))
