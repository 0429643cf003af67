"""Projections, one at a time: checkpoints, and the keys in Redis that no aggregate accounts for.

A result counts only if the projection kept its build during the check: while a projector clears Redis for a
rebuild, the keys that are not cleared yet seem to belong to no aggregate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from contracts import streams
from operations.verify.checks import event_counters, sorted_sets, view_counters
from operations.verify.checks.event_counters import CounterSnapshot
from operations.verify.model import Expected, Problem, ProjectionSpec
from operations.verify.recheck import confirm
from operations.verify.report import Report
from operations.verify.sources import Sources, parse_id

CHECKS_OF_HASHES = {
    "view": "views",
    "history": "history",
    "counters": "counters",
    "event_counters": "event_counters",
}
"""The check of each kind of hash; of all others `checkpoints`."""


@dataclass
class Projections:
    """Compares projections with the sums over all aggregates."""

    specs: Sequence[ProjectionSpec]
    sources: Sources
    incarnation: str
    """Of the database."""
    standby: bool
    """PostgreSQL may be behind the other servers."""
    before: dict[str, CounterSnapshot] = field(default_factory=dict)
    """Event counters before the views were read, by projection."""

    async def read_event_counters(self) -> None:
        """Read the event counters of all projections; to be called before the views are read."""
        for spec in self.specs:
            if spec.event_contributions:
                self.before[spec.name] = await event_counters.read_counters(self.sources.redis, spec)

    async def check(
        self, spec: ProjectionSpec, expected: Expected, max_findings: int, within: float
    ) -> Report:
        """Check a projection until it kept one build during the check.

        Args:
            spec: the projection.
            expected: sums over all aggregates.
            max_findings: of the report.
            within: seconds to catch up and to keep one build.
        """
        deadline = monotonic() + within
        while True:
            checkpoint_problems = await confirm(lambda: self._check_checkpoints(spec), deadline)
            build = await self.sources.redis.read_build(spec.view)
            report = Report(max_findings)
            await self._check_keys(spec, expected, report, deadline)
            ready = build[0] is not None or checkpoint_problems
            if ready and build == await self.sources.redis.read_build(spec.view):
                break
            if monotonic() > deadline:
                note = f"{spec.name} was rebuilt during the check: not compared"
                report = Report(max_findings, notes=[note])
                break
        report.counts["projections"] = 1
        report.add_all(checkpoint_problems)
        report.add_all(self._describe_other_types(spec))
        return report

    def _describe_other_types(self, spec: ProjectionSpec) -> Sequence[Problem]:
        """Return the keys of a projection that were read as hashes and are none."""
        scope = f":{spec.view.projection}:{spec.view.generation}"
        return [
            Problem(CHECKS_OF_HASHES.get(kind, "checkpoints"), key, f"not a hash: {error}")
            for key, error in self.sources.redis.other_types.items()
            for kind, _, rest in [key.partition(":")]
            if f":{rest}".startswith(scope)
        ]

    async def _check_checkpoints(self, spec: ProjectionSpec) -> Sequence[Problem]:
        """Check a projection's build, ready marker and checkpoints; the stream's end is read last."""
        redis = self.sources.redis
        checkpoints = await redis.read_checkpoints(spec.view)
        ready, build = await redis.execute([("GET", spec.view.ready), ("GET", spec.view.build)])
        stream = await self.sources.stream.read_identity()
        problems = []

        def report(text: str, *, transient: bool = True) -> None:
            problems.append(Problem("checkpoints", f"projection {spec.name}", text, transient))

        if not isinstance(build, bytes) or build.decode().partition("/")[0] != self.incarnation:
            report(f"build is {_to_text(build)}, expected one of incarnation {self.incarnation}")
        if not isinstance(ready, bytes) or ready.decode() != self.incarnation:
            report(f"ready marker is {_to_text(ready)}, expected incarnation {self.incarnation}")
        if missing_partitions := set(range(streams.PARTITIONS)) - set(checkpoints):
            report(f"{len(missing_partitions)} partitions have no checkpoint")
        if stream is None:
            return problems
        if foreign := sum(epoch != stream.epoch for epoch, _ in checkpoints.values()):
            report(f"{foreign} partitions have a checkpoint of another epoch than the stream")
        for partition, (epoch, sequence) in sorted(checkpoints.items()):
            if epoch == stream.epoch and sequence > stream.last_sequence:
                text = f"checkpoint of partition {partition} is {sequence}"
                report(f"{text}, the stream ends at {stream.last_sequence}", transient=False)
        return problems

    async def _check_keys(
        self, spec: ProjectionSpec, expected: Expected, report: Report, deadline: float
    ) -> None:
        redis = self.sources.redis
        report.add_all(await confirm(lambda: self._check_parked(spec), deadline))
        async for problem in sorted_sets.check(redis, spec, expected.members, report.counts):
            report.add(problem)
        problems, unstable = await view_counters.check(
            redis, spec, expected.contributions, report.counts, deadline
        )
        report.add_all(problems)
        report.notes += [f"{key} changed during every check: not compared" for key in unstable]
        await self._check_event_counters(spec, expected.event_contributions, report)
        for kind, check in (("view", "views"), ("history", "history")):
            async for keys in redis.scan_keys(kind, spec.view):
                report.add_all(await self._check_owners(spec, kind, check, keys))

    async def _check_parked(self, spec: ProjectionSpec) -> Sequence[Problem]:
        """Return the entries in the list of parked aggregates whose views are not parked."""
        redis = self.sources.redis
        (entries,) = await redis.read_hashes([spec.view.parked])
        ids = [view_id.decode() for view_id in entries]
        replies = await redis.execute([("HEXISTS", spec.view.key(view_id), "parked") for view_id in ids])
        return [
            Problem(
                "checkpoints",
                f"projection {spec.name}",
                f"{view_id} is listed as parked, but its view is not",
                transient=True,
            )
            for view_id, parked in zip(ids, replies, strict=True)
            if not parked
        ]

    async def _check_event_counters(
        self, spec: ProjectionSpec, sums: Mapping[tuple[str, str], int], report: Report
    ) -> None:
        if (before := self.before.get(spec.name)) is None:
            return
        after = await event_counters.read_counters(self.sources.redis, spec)
        report.counts["event counters"] = len(after.counters)
        report.counts["event counter keys"] = len({key for key, _ in after.counters})
        if before.build != after.build:
            report.notes.append(f"{spec.name} was rebuilt during the check: event counters not compared")
            return
        prefix = f"event_counters:{spec.name}:"
        own_sums = {counter: sum_ for counter, sum_ in sums.items() if counter[0].startswith(prefix)}
        report.add_all(list(event_counters.compare(before, after, own_sums)))

    async def _check_owners(
        self, spec: ProjectionSpec, kind: str, check: str, keys: Sequence[str]
    ) -> Sequence[Problem]:
        """Return the keys whose aggregates do not exist."""
        if self.standby:  # the aggregate may not have been replicated yet
            return ()
        names = {
            key: {streams.stream_name(stream_type, parse_id(key)) for stream_type in spec.view.source_streams}
            for key in keys
        }
        existing_names = await self.sources.postgres.find_existing(
            [name for candidates in names.values() for name in candidates]
        )
        return [
            Problem(check, f"{kind} {spec.name} {parse_id(key)}", "no such aggregate")
            for key, candidates in names.items()
            if not candidates & existing_names
        ]


def _to_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "missing"
