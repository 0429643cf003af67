"""The streams of a saga: each instance has consumed every event that belongs to it, and no other.

Events from before the saga's beginning belong to no instance.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from contracts import streams
from operations.verify.checks import saga_deadlines
from operations.verify.checks.skipped_events import read_skips, select_events
from operations.verify.checks.stored_streams import parse_events
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.recheck import confirm
from operations.verify.report import Report
from operations.verify.sources import PAGE_SIZE, PostgresReader
from runtime.skipped_events import name_saga

BEGINNING = "SELECT at FROM saga_beginnings WHERE saga = :saga"

NOT_AT_END = """
SELECT s.id, s.version, coalesce(g.version, 0) AS consumed, coalesce(g.failed_input, '') AS failed_input
FROM streams s LEFT JOIN sagas g ON g.saga = :saga AND g.id = substr(s.id, length(:stream_type) + 2)
WHERE s.type = :stream_type AND g.version IS DISTINCT FROM s.version
AND (CAST(:beginning AS timestamptz) IS NULL OR EXISTS (
  SELECT FROM events e WHERE e.stream = s.id AND e.version = s.version AND e.recorded_at >= :beginning
))
AND (NOT :has_deadlines OR g.version IS NOT NULL)
ORDER BY s.id LIMIT 1000
"""
"""Where deadlines stand for instances, `saga_deadlines` checks the streams without one."""

WITHOUT_STREAM = """
SELECT id FROM sagas g WHERE saga = :saga AND (version > 0 OR other_streams = '{}')
AND NOT EXISTS (SELECT FROM streams WHERE id = :stream_type || '.' || g.id) ORDER BY id LIMIT 1000
"""

OTHER_STREAM_NAMES = "SELECT id FROM streams WHERE type = :type AND id > :after ORDER BY id LIMIT :limit"

OTHER_POSITIONS = """
SELECT s.id, s.stream, g.other_streams -> s.stream ->> 'version' AS version,
       coalesce(g.other_streams -> s.stream ->> 'failed_input', '') AS failed_input
FROM unnest(CAST(:ids AS text[]), CAST(:streams AS text[])) AS s (id, stream)
LEFT JOIN sagas g ON g.saga = :saga AND g.id = s.id
ORDER BY s.id, s.stream
"""

WITHOUT_OTHER_STREAM = """
SELECT g.id, k.stream FROM sagas g CROSS JOIN LATERAL jsonb_object_keys(
  CASE jsonb_typeof(g.other_streams) WHEN 'object' THEN g.other_streams ELSE '{}' END
) AS k (stream)
WHERE g.saga = :saga AND g.other_streams <> '{}'
AND NOT EXISTS (SELECT FROM streams WHERE id = k.stream) ORDER BY g.id, k.stream LIMIT 1000
"""

UNREADABLE = "SELECT id, blocked_reason FROM sagas WHERE saga = :saga AND unreadable ORDER BY id LIMIT 1000"

PARKED = (
    "SELECT stream, version, error FROM saga_parked_streams WHERE saga = :saga ORDER BY stream LIMIT 1000"
)


async def check(
    postgres: PostgresReader,
    spec: SagaSpec,
    aggregates: Mapping[str, Aggregate],
    report: Report,
    deadline: float,
) -> None:
    """Check all instances of a saga.

    Args:
        postgres: the rows of the sagas, and the events.
        spec: the saga.
        aggregates: the aggregates by stream type.
        report: receives the findings.
        deadline: of `time.monotonic`, for instances that are behind.
    """
    rows = await postgres.fetch(BEGINNING, saga=spec.name)
    beginning = rows[0].at if rows else None
    report.add_all(await confirm(partial(_find_unreadable, postgres, spec), deadline))
    if spec.subscribes_to:
        report.add_all(await confirm(partial(_find_behind, postgres, spec, beginning), deadline))
        if spec.deadline is not None:
            await saga_deadlines.check(postgres, spec, aggregates, report, deadline)
        for (id_,) in await postgres.fetch(WITHOUT_STREAM, saga=spec.name, stream_type=spec.subscribes_to):
            report.add(_describe(spec, id_, f"no stream {spec.subscribes_to}.{id_}"))
    for stream_type in spec.keys:
        if stream_type not in aggregates:
            report.notes.append(f"saga {spec.name}: {stream_type} not compared: its context is not chosen")
            continue
        other = _OtherStreams(postgres, spec, aggregates[stream_type], beginning)
        await other.check(report.add_all, deadline)
    for id_, stream in await postgres.fetch(WITHOUT_OTHER_STREAM, saga=spec.name):
        report.add(_describe(spec, id_, f"no stream {stream}"))
    report.add_all(await confirm(partial(_find_parked, postgres, spec), deadline))


async def _find_behind(
    postgres: PostgresReader, spec: SagaSpec, beginning: datetime | None
) -> Sequence[Problem]:
    """Return the instances that are not at the end of their own streams."""
    rows = await postgres.fetch(
        NOT_AT_END,
        saga=spec.name,
        stream_type=spec.subscribes_to,
        beginning=beginning,
        has_deadlines=spec.deadline is not None,
    )
    return [_describe_behind(spec, row) for row in rows]


def _describe_behind(spec: SagaSpec, row: Any) -> Problem:
    id_ = streams.aggregate_id(row.id)
    if row.failed_input:
        return _describe(spec, id_, f"failed input: {row.failed_input}")
    text = f"consumed version {row.consumed} of {row.version}"
    return _describe(spec, id_, text, transient=row.consumed < row.version)


async def _find_unreadable(postgres: PostgresReader, spec: SagaSpec) -> Sequence[Problem]:
    """Return the instances that a process manager could not read: their inputs wait."""
    return [_describe(spec, id_, reason) for id_, reason in await postgres.fetch(UNREADABLE, saga=spec.name)]


async def _find_parked(postgres: PostgresReader, spec: SagaSpec) -> Sequence[Problem]:
    return [
        Problem(
            "sagas",
            f"saga {spec.name}",
            f"{stream} is parked at version {version}: {error or 'its events are read'}",
            transient=not error,
        )
        for stream, version, error in await postgres.fetch(PARKED, saga=spec.name)
    ]


class _OtherStreams:
    """The check of the streams of one type whose events name their instance."""

    def __init__(
        self, postgres: PostgresReader, spec: SagaSpec, aggregate: Aggregate, beginning: datetime | None
    ) -> None:
        self._postgres, self._spec, self._aggregate = postgres, spec, aggregate
        self._key = spec.keys[aggregate.stream_type]
        self._beginning = beginning

    async def check(self, report_all: Callable[[Sequence[Problem]], None], deadline: float) -> None:
        """Check a page of streams after the other."""
        after, stream_type = "", self._aggregate.stream_type
        while rows := await self._postgres.fetch(
            OTHER_STREAM_NAMES, type=stream_type, after=after, limit=PAGE_SIZE
        ):
            names = [row.id for row in rows]
            after = names[-1]
            report_all(await confirm(partial(self._check_page, names), deadline))

    async def _check_page(self, names: Sequence[str]) -> Sequence[Problem]:
        expected = await self._list_expected(names)
        positions = await self._postgres.fetch(
            OTHER_POSITIONS,
            saga=self._spec.name,
            ids=[id_ for id_, _ in expected],
            streams=[stream for _, stream in expected],
        )
        problems = (self._compare(row, expected[row.id, row.stream]) for row in positions)
        return [problem for problem in problems if problem is not None]

    def _compare(self, row: Any, versions: tuple[int, int]) -> Problem | None:
        """Return the problem of an instance's position.

        Args:
            row: the position.
            versions: of the last event that the instance has to consume, and of the last one that it may: it
                may have stepped over skipped ones.
        """
        if row.version and not row.version.isdecimal():
            text = f"its position in {row.stream} cannot be read: {row.version}"
            return _describe(self._spec, row.id, text)
        consumed = int(row.version or 0)
        if row.failed_input:
            return _describe(self._spec, row.id, f"failed input: {row.failed_input}")
        version, latest = versions
        if version <= consumed <= latest:
            return None
        text = f"consumed version {consumed} of {version} of {row.stream}"
        return _describe(self._spec, row.id, text, transient=consumed < version)

    async def _list_expected(self, names: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
        """Return the versions of `_compare` of each stream that names an instance, by id and stream."""
        expected: dict[tuple[str, str], tuple[int, int]] = {}
        stored = await self._postgres.read_streams(names)
        skips = await read_skips(self._postgres, names)
        for name, stream in stored.items():
            skipped = skips.get(name, {}).get(name_saga(self._spec.name), frozenset())
            # Other checks report an event that cannot be parsed.
            if skipped:
                events = select_events(stream, self._aggregate.events, skipped).events
            else:
                events, _ = parse_events(stream, self._aggregate.events)
            for event in events:
                passed_over = self._beginning is not None and event.recorded.recorded_at < self._beginning
                id_ = "" if passed_over else self._key(event.message)
                if streams.VALID_ID.fullmatch(id_):
                    version = event.recorded.version
                    expected[id_, name] = version, max({version, *skipped})
        return expected


def _describe(spec: SagaSpec, id_: str, text: str, *, transient: bool = False) -> Problem:
    return Problem("sagas", f"saga {spec.name} {id_}", text, transient=transient)
