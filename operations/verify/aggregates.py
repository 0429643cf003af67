"""Aggregates, a page at a time: what PostgreSQL, the stream and Redis hold of them, compared.

The order of reads makes a live system no reason for alarm: first the versions that must have arrived, then
how far the projections say they are, then the views, then the events, and last what is derived from views.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from operations.verify import entries, recorded, views
from operations.verify.entries import Looked, Tally
from operations.verify.feed import Feed
from operations.verify.findings import Problem
from operations.verify.model import Aggregate, Event, Reading
from operations.verify.read_model import ReadModel
from operations.verify.store import Store, Stream
from runtime import streams

Progress = Mapping[str, Mapping[int, tuple[str, int]]]
"""Projection to partition to epoch and sequence."""


@dataclass
class Counts:
    """What was compared, once for each aggregate."""

    of: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    """How many streams nobody can fold, by type."""
    tally: Tally = field(default_factory=Tally)


class Aggregates:
    """Compares aggregates by the names of their streams.

    Args:
        known: the aggregates that can be folded, by type.
        store: PostgreSQL.
        feed: the stream, read before.
        redis: the read model.
        fingerprints: of the snapshots that are compared, by type.
        standby: whether PostgreSQL may be behind the other servers.
    """

    def __init__(
        self,
        known: Mapping[str, Aggregate],
        store: Store,
        feed: Feed,
        redis: ReadModel,
        fingerprints: Mapping[str, str],
        standby: bool,
    ) -> None:
        self._known = known
        self._messages = {kind: aggregate.messages() for kind, aggregate in known.items()}
        self._readings = [reading for aggregate in known.values() for reading in aggregate.readings]
        self._store, self._feed, self._redis = store, feed, redis
        self._fingerprints = fingerprints
        self._standby = standby

    async def look(self, targets: Mapping[str, int], counts: Counts) -> dict[str, list[Problem]]:
        """Return what is wrong with aggregates, by stream; those with which nothing is are left out.

        Args:
            targets: the streams, each with a version that it had before.
            counts: takes what was compared.
        """
        progress: Progress = {
            reading.name: await self._redis.progress(reading.view) for reading in self._readings
        }
        looked = [Looked(name, reading) for name in targets for reading in self._readings_of(name)]
        await entries.read(self._redis, looked)
        found = await self._store.streams(list(targets))
        problems: dict[str, list[Problem]] = {}
        folds: dict[str, Sequence[Event]] = {}
        for name in targets:
            stream = found.get(name) or Stream(name)
            folds[name], problems[name] = self._recorded(stream, counts)
            problems[name] += self._feed.compare(stream)
        comparable = [view for view in looked if folds[view.stream]]
        for view in comparable:
            events, target = folds[view.stream], targets[view.stream]
            reached = self._reached(progress[view.reading.name], events, target)
            view.seen = views.compare(
                view.reading, view.id, view.found, events, target, reached, self._standby
            )
            view.seen.problems += views.compare_log(view.reading, view.id, view.log, view.seen, events)
            counts.of["views"] += bool(view.found)
            counts.of["logged"] += len(view.log)
        await entries.compare(self._redis, comparable, counts.tally)
        for view in comparable:
            problems[view.stream] += view.seen.problems
        return {name: wrong for name, wrong in problems.items() if wrong}

    def _readings_of(self, name: str) -> Sequence[Reading]:
        aggregate = self._known.get(streams.stream_type(name))
        return aggregate.readings if aggregate else ()

    def _recorded(self, stream: Stream, counts: Counts) -> tuple[Sequence[Event], list[Problem]]:
        """Return a stream's events, none where they cannot be folded, and what is wrong with them."""
        problems = list(recorded.versions(stream))
        kind = streams.stream_type(stream.name)
        counts.of["streams"] += 1
        counts.of["events"] += len(stream.events)
        if kind not in self._known:
            counts.unknown[kind] += 1
            return (), problems
        events, wrong = recorded.parsed(stream, self._messages[kind])
        problems += wrong
        if not stream.events or [event.recorded.version for event in events] != list(
            range(1, len(stream.events) + 1)
        ):
            return (), problems
        try:
            problems += self._snapshot(stream, events, counts)
            for reading in self._known[kind].readings:
                reading.fold(events)
        except (LookupError, ValueError, TypeError) as error:
            return (), [
                *problems,
                Problem("events", f"stream {stream.name}", f"it cannot be folded: {error}"),
            ]
        return events, problems

    def _snapshot(self, stream: Stream, events: Sequence[Event], counts: Counts) -> Iterator[Problem]:
        row, kind = stream.row, streams.stream_type(stream.name)
        if row is None or row.state is None:
            return
        if row.fingerprint != self._fingerprints.get(kind, row.fingerprint):
            counts.of["skipped"] += 1
            return
        counts.of["snapshots"] += 1
        yield from recorded.snapshot(self._known[kind], stream.name, row, events)

    def _reached(self, progress: Mapping[int, tuple[str, int]], events: Sequence[Event], target: int) -> bool:
        """Return whether a projection's progress says that it has an aggregate's version."""
        if not 0 < target <= len(events):
            return True
        event = events[target - 1].recorded
        epoch, sequence = progress.get(streams.partition(streams.aggregate_id(event.stream)), ("", 0))
        return epoch == self._feed.epoch and 0 < self._feed.sequence(event.position) <= sequence
