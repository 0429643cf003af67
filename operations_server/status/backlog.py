"""Counts the events that projections lack, from PostgreSQL's rows and the projections' checkpoints. Pure.

How it works. An event is unapplied if its sequence is above the checkpoint of its partition, or if it has no
sequence yet. The relay marks rows a moment after it has published them. While the stream's end lies beyond
the last mark, the first pending rows are therefore taken as published, in order of their positions.

Some 10,000 rows are read, so beyond them the number of events is an estimate: as many of the remaining
messages as of those that were read. The oldest event is among the first rows, so its age is exact.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contracts import streams
from operations_server.status.states import Checkpoint, Unapplied

Row = tuple[str, int | None, str, float]
"""An event: its epoch, its sequence (None if it is pending), its stream, and its age in seconds."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The published part of the log.

    Args:
        epoch: of the current stream.
        marked: the last sequence that is marked in the outbox.
        last: the last sequence of the stream; `marked` if it is unknown.
    """

    epoch: str
    marked: int
    last: int


Positions = Mapping[int, Checkpoint]
"""The checkpoints of a projection by partition."""


def count_unapplied(
    rows: Iterable[Row], feed: Feed, projections: Mapping[str, tuple[Sequence[str], Positions]]
) -> Mapping[str, Mapping[int, Unapplied]]:
    """Return the unapplied events of each partition of each projection.

    Args:
        rows: the events after the earliest checkpoint, in order of their positions.
        feed: what is published.
        projections: by name, the types of the source streams and the checkpoints.
    """
    published = list(_assign_sequences(rows, feed))
    result = {name: {number: Unapplied() for number in range(streams.PARTITIONS)} for name in projections}
    followers: dict[str, list[tuple[Positions, dict[int, Unapplied]]]] = {}
    for name, (types, positions) in projections.items():
        for type_ in types:
            followers.setdefault(type_, []).append((positions, result[name]))
    shares: Counter[tuple[str, int]] = Counter()
    for epoch, sequence, stream, age in published:
        type_, number = streams.stream_type(stream), streams.partition(streams.aggregate_id(stream))
        shares[type_, number] += 1
        for positions, unapplied in followers.get(type_, ()):
            if _lacks(positions.get(number), epoch, sequence, feed.epoch):
                each = unapplied[number]
                each.events += sequence is not None
                each.oldest_age = max(age, each.oldest_age or 0.0)
    _add_unread(result, projections, published, shares, feed)
    return result


def _assign_sequences(rows: Iterable[Row], feed: Feed) -> Iterable[Row]:
    unmarked = iter(range(feed.marked + 1, feed.last + 1))
    for epoch, sequence, stream, age in rows:
        if sequence is None and (assumed := next(unmarked, None)) is not None:
            yield feed.epoch, assumed, stream, age
        else:
            yield epoch, sequence, stream, age


def _lacks(checkpoint: Checkpoint | None, epoch: str, sequence: int | None, current: str) -> bool:
    """Return whether a projection at this checkpoint lacks an event."""
    if checkpoint is None or sequence is None:
        return True
    if epoch == checkpoint[0]:
        return sequence > checkpoint[1]
    return epoch == current  # the checkpoint is of an earlier stream, in which the event was not yet


def _add_unread(
    result: Mapping[str, Mapping[int, Unapplied]],
    projections: Mapping[str, tuple[Sequence[str], Positions]],
    rows: Sequence[Row],
    shares: Mapping[tuple[str, int], int],
    feed: Feed,
) -> None:
    """Add an estimate of the events that were not read, by the share of their kind among those that were."""
    read = sorted(sequence for epoch, sequence, _, _ in rows if epoch == feed.epoch and sequence is not None)
    for name, (types, positions) in projections.items():
        for number, (epoch, sequence) in positions.items():
            if epoch != feed.epoch or number not in result[name]:
                continue
            unread = feed.last - sequence - (len(read) - bisect_right(read, sequence))
            if unread > 0 and rows:
                alike = sum(shares[type_, number] for type_ in types)
                result[name][number].events += round(unread * alike / len(rows))
