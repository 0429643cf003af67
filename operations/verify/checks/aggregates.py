"""Aggregates, a page at a time: what PostgreSQL, the stream and Redis hold of them, compared.

The order of reads makes a live system no reason for alarm: first the versions that must have arrived, then
how far the projections say they are, then the views, then the events, and last what is derived from views.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contracts import streams
from operations.verify.checks import derived, stored_streams, views
from operations.verify.checks.derived import Tally
from operations.verify.checks.stored_streams import Story
from operations.verify.checks.views import Case
from operations.verify.model import Aggregate, Reading
from operations.verify.report import Problem
from operations.verify.sources.event_store import Store, Stream
from operations.verify.sources.read_model import ReadModel
from operations.verify.sources.stream import Feed

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
        cases = [
            Case(name, reading, targets[name]) for name in targets for reading in self._readings_of(name)
        ]
        await derived.read(self._redis, cases)
        found = await self._store.streams(list(targets))
        problems: dict[str, list[Problem]] = {}
        stories: dict[str, Story] = {}
        for name in targets:
            stream = found.get(name) or Stream(name)
            stories[name], problems[name] = self._recorded(stream, counts)
            problems[name] += self._feed.compare(stream)
        for case in cases:
            case.story = stories[case.stream]
            case.reached = self._reached(progress[case.reading.name], found.get(case.stream), case.target)
            views.compare(case, self._standby)
            views.compare_log(case)
            counts.of["views"] += bool(case.found)
            counts.of["history"] += len(case.log)
        await derived.compare(self._redis, cases, counts.tally)
        for case in cases:
            problems[case.stream] += case.problems
        return {name: wrong for name, wrong in problems.items() if wrong}

    def _readings_of(self, name: str) -> Sequence[Reading]:
        aggregate = self._known.get(streams.stream_type(name))
        return aggregate.readings if aggregate else ()

    def _recorded(self, stream: Stream, counts: Counts) -> tuple[Story, list[Problem]]:
        """Return a stream's events as far as they can be folded, and what is wrong with them."""
        problems = list(stored_streams.versions(stream))
        kind = streams.stream_type(stream.name)
        counts.of["streams"] += 1
        counts.of["events"] += len(stream.events)
        if kind not in self._known:
            counts.unknown[kind] += 1
            return Story(), problems
        aggregate = self._known[kind]
        events, wrong = stored_streams.parsed(stream, self._messages[kind])
        story, unfolded = stored_streams.folded(aggregate, stream, events)
        problems += [*wrong, *unfolded]
        if stream.row is not None and stream.row.state is not None:
            skipped = stream.row.fingerprint != self._fingerprints.get(kind, stream.row.fingerprint)
            counts.of["skipped" if skipped else "snapshots"] += 1
            if not skipped:
                problems += stored_streams.snapshot(aggregate, stream.name, stream.row, story)
        return story, problems

    def _reached(self, progress: Mapping[int, tuple[str, int]], stream: Stream | None, target: int) -> bool:
        """Return whether a projection's progress says that it has an aggregate's version."""
        event = next((event for event in stream.events if event.version == target), None) if stream else None
        if event is None or stream is None:
            return True
        epoch, sequence = progress.get(streams.partition(streams.aggregate_id(stream.name)), ("", 0))
        return epoch == self._feed.epoch and 0 < self._feed.sequence(event.position) <= sequence
