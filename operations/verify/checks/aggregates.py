"""Aggregates, a page of streams at a time: PostgreSQL, JetStream and Redis compared.

How it works. The system may be live, so the order of the reads decides which differences prove anything.

1. Target versions: PostgreSQL had committed them before anything else was read (the caller passes them).
2. Checkpoints: one that covers a target's message promises that the view includes the target version.
3. Views, then their histories: at least as new as the checkpoints.
4. Events: every event that a view includes is among them, except on a standby.
5. Sorted sets: a missing member counts only if its view has not been written since step 3.

Each view is folded to its own version, so a view that is behind or ahead of the targets is compared exactly.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contracts import streams
from operations.verify.checks import (
    counterparts,
    event_stream,
    stored_streams,
    view_histories,
    view_memberships,
    views,
)
from operations.verify.checks.skipped_events import find_forgotten, omit_problems, read_skips, select_events
from operations.verify.checks.stored_streams import StreamEvents, find_version
from operations.verify.checks.views import ViewCheck
from operations.verify.model import Aggregate, Expected, Problem, ProjectionSpec, limit_problems
from operations.verify.sources import Checkpoints, Sources, StoredStream
from runtime.skipped_events import name_projection


@dataclass
class Counts:
    """Numbers of compared items, and the sums over them; each aggregate counts once."""

    compared: Counter[str] = field(default_factory=Counter)
    """By the names in report.CHECKS."""
    without_fold: Counter[str] = field(default_factory=Counter)
    """Streams of types that no context declares, by type."""
    expected: Expected = field(default_factory=Expected)


class Aggregates:
    """Compares aggregates.

    Args:
        aggregates: the aggregates with a fold, by stream type.
        sources: the servers; the stream has been read.
        fingerprints: of the snapshots to compare, by stream type; other snapshots are skipped.
        standby: PostgreSQL may be behind the other servers.
    """

    def __init__(
        self,
        aggregates: Mapping[str, Aggregate],
        sources: Sources,
        fingerprints: Mapping[str, str],
        standby: bool,
    ) -> None:
        self._aggregates = aggregates
        self._specs = [spec for aggregate in aggregates.values() for spec in aggregate.projections]
        self._sources = sources
        self._fingerprints = fingerprints
        self._standby = standby

    async def check(self, targets: Mapping[str, int], counts: Counts) -> dict[str, list[Problem]]:
        """Return the problems of aggregates, by stream; streams without problems are omitted.

        Args:
            targets: the streams, each with a version that PostgreSQL had before this call.
            counts: receives the numbers of compared items.
        """
        redis = self._sources.redis
        checkpoints = {spec.name: await redis.read_checkpoints(spec.view) for spec in self._specs}
        view_checks = [
            ViewCheck(name, spec, targets[name]) for name in targets for spec in self._get_specs(name)
        ]
        await view_memberships.read(redis, view_checks)
        stored = await self._sources.postgres.read_streams(list(targets))
        # Whatever a view has skipped had its row before the view was read.
        skips = await read_skips(self._sources.postgres, list(targets))
        problems: dict[str, list[Problem]] = {}
        events: dict[str, StreamEvents] = {}
        for name in targets:
            stored_stream = stored.get(name) or StoredStream(name)
            events[name], problems[name] = self._check_stored(stored_stream, counts)
            if name in skips:
                all_skipped = frozenset[int]().union(*skips[name].values())
                problems[name] = omit_problems(problems[name], name, all_skipped)
            compared = event_stream.compare_events(self._sources.stream, stored_stream, counts.compared)
            problems[name] += limit_problems(compared)
        found = await counterparts.check(self._sources.postgres, self._aggregates, events)
        for name, counterpart_problems in found.items():
            problems[name] += counterpart_problems
        for check in view_checks:
            check.events = events[check.stream]
            skipped = skips.get(check.stream, {}).get(name_projection(check.spec.name), frozenset())
            stored_stream = stored.get(check.stream) or StoredStream(check.stream)
            if skipped := skipped.union(events[check.stream].forgotten):
                types = self._aggregates[streams.stream_type(check.stream)].events
                check.events = select_events(stored_stream, types, skipped)
            check.covered = self._covers(
                checkpoints[check.spec.name], stored.get(check.stream), check.target_version
            )
            views.compare_view(check, self._standby)
            view_histories.compare_history(check)
            counts.compared["archived views" if check.archived else "views"] += bool(check.view)
            counts.compared["archived entries"] += check.archived_entries
            counts.compared["history"] += len(check.history)
        await view_memberships.compare(redis, view_checks, counts.expected)
        for check in view_checks:
            problems[check.stream] += check.problems
        return {name: stream_problems for name, stream_problems in problems.items() if stream_problems}

    def _get_specs(self, name: str) -> Sequence[ProjectionSpec]:
        aggregate = self._aggregates.get(streams.stream_type(name))
        return aggregate.projections if aggregate else ()

    def _check_stored(self, stored: StoredStream, counts: Counts) -> tuple[StreamEvents, list[Problem]]:
        """Check a stream in PostgreSQL; return its events up to the first that cannot be folded."""
        problems = list(limit_problems(stored_streams.check_versions(stored)))
        stream_type = streams.stream_type(stored.name)
        counts.compared["streams"] += 1
        counts.compared["events"] += len(stored.events)
        if stream_type not in self._aggregates:
            counts.without_fold[stream_type] += 1
            return StreamEvents(), problems
        aggregate = self._aggregates[stream_type]
        parsed, parse_problems = stored_streams.parse_events(stored, aggregate.events)
        if forgotten := find_forgotten(stored):
            return select_events(stored, aggregate.events, frozenset(forgotten)), [*problems, *parse_problems]
        events, fold_problems = stored_streams.fold_events(aggregate, stored, parsed)
        problems += [*parse_problems, *fold_problems]
        row = stored.row
        if row is not None and row.state is not None:
            skipped = row.fingerprint != self._fingerprints.get(stream_type, row.fingerprint)
            counts.compared["skipped" if skipped else "snapshots"] += 1
            if not skipped:
                problems += stored_streams.check_snapshot(aggregate, stored.name, row, events.events)
        problems += self._check_kept_snapshots(aggregate, stored, events, counts)
        return events, problems

    def _check_kept_snapshots(
        self, aggregate: Aggregate, stored: StoredStream, events: StreamEvents, counts: Counts
    ) -> Iterator[Problem]:
        """Check the snapshots of long streams that are kept beside those in the streams' rows."""
        own = self._fingerprints.get(aggregate.stream_type)
        for kept in stored.kept_snapshots:
            skipped = stored.row is None or kept.fingerprint != own
            counts.compared["skipped" if skipped else "snapshots"] += 1
            if stored.row is not None and not skipped:
                row = replace(
                    stored.row,
                    state=kept.state,
                    state_version=kept.version,
                    fingerprint=kept.fingerprint,
                )
                yield from stored_streams.check_snapshot(
                    aggregate, stored.name, row, events.events, "kept snapshot"
                )

    def _covers(self, checkpoints: Checkpoints, stored: StoredStream | None, target_version: int) -> bool:
        """Return whether a projection's checkpoint promises that the view includes a version."""
        if stored is None:
            return True
        event = find_version(stored.events, target_version)
        if event is None:
            return True
        epoch, sequence = checkpoints.get(streams.partition(streams.aggregate_id(stored.name)), ("", 0))
        contents, row = self._sources.stream, stored.outbox.get(event.position)
        if epoch != contents.epoch:
            return False
        if published := contents.sequence_at(event.position):
            return published <= sequence
        # Housekeeping removes what all checkpoints include.
        return row is None and contents.is_archived(event, 0)
