"""`diptych verify` from beginning to end; `Verification.run` is its table of contents.

How it works. One pass compares all streams, a page at a time, with everything that belongs to each of them.
Streams with problems are checked again until their drift is confirmed (`recheck.py`). The remaining checks
start from the other side, from a message of the stream or a key in Redis that no aggregate accounts for; they
use the sums of the pass (`Expected`).

In memory are a page of streams, 17 bytes for each event (`sources/stream_contents.py`), the names of the
streams to check again, and one number for each sorted set and each counter in Redis. Long streams and long
histories are in temporary files (`spool.py`), with some 40 bytes for each event in memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from contracts.key_ring import Purpose
from contracts.subject_keys import MasterKeyMissing
from operations.server_errors import UNREACHABLE
from operations.verify.checks import event_stream, sagas, search_indexes, tables
from operations.verify.checks.aggregates import Aggregates, Counts
from operations.verify.checks.projections import Projections
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.recheck import RecheckQueue, confirm
from operations.verify.report import Report, SkippedEvent
from operations.verify.sources import (
    PAGE_SIZE,
    PostgresReader,
    RedisReader,
    Sources,
    StreamChanged,
    StreamContents,
)
from runtime.jetstream import ReaderLost, connect
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.key_file import KeyFile
from runtime.process.settings import Settings

CONNECT_TIMEOUT = 5.0
"""Seconds for the connection to NATS."""

SKIPPED = "SELECT consumer, stream, version, reason, subject, recorded_at FROM skipped_events ORDER BY number"
Rest = Callable[[int], Awaitable[None]]
"""Takes the number of streams that were compared since the last call."""

UNVERIFIABLE = (*UNREACHABLE, StreamChanged, ReaderLost, MasterKeyMissing)
"""Errors after which the comparison has no result."""


async def verify(
    settings: Settings,
    *,
    within: float = 60.0,
    max_findings: int = 20,
    aggregates: Sequence[Aggregate] | None = None,
    observe: Callable[[int, int], None] = lambda _done, _total: None,
    rest: Rest | None = None,
) -> Report:
    """Compare everything that is derived from the events with an independent fold of them.

    Args:
        settings: the addresses of the servers.
        within: seconds to catch up for anything that is behind, in each step.
        max_findings: findings of each check that the report keeps.
        aggregates: the aggregates with a fold; None for those of the chosen contexts.
        observe: called with the number of events that are compared, and that of all.
        rest: called after each page of streams with their number; None to compare as fast as possible.

    Raises:
        StartError: a context is unknown or invalid.
        UNVERIFIABLE: a server is unreachable, or the stream changed.
    """
    manifests = choose_contexts(settings)
    if aggregates is None:
        aggregates = load_parts(manifests, "verification", "AGGREGATES", Aggregate)
    specs = load_parts([each for each in manifests if each.sagas], "verification", "SAGAS", SagaSpec)
    keys = KeyFile(settings.keys, [Purpose.FEED])
    postgres = PostgresReader(settings.database_url, keys.get_ring)
    redis = RedisReader(settings.redis_url)
    connection = await connect(settings.nats_url, "verify", keys.get_ring)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.wait_until_connected()
        sources = Sources(postgres, StreamContents(connection), redis)
        incarnation, standby = await postgres.read_incarnation()
        aggregates = [await _choose_generations(each, redis) for each in aggregates]
        verification = Verification(
            sources,
            aggregates,
            specs,
            incarnation,
            standby=standby,
            within=within,
            max_findings=max_findings,
            all_contexts=not settings.contexts.strip(),
            observe=observe,
            rest=rest,
        )
        return await verification.run()
    finally:
        await connection.close()
        await redis.close()
        await postgres.close()


async def _choose_generations(aggregate: Aggregate, redis: RedisReader) -> Aggregate:
    """Return an aggregate with its projections in the generations that serve."""
    names = await redis.read_serving([spec.view for spec in aggregate.projections])
    specs = [spec.at(name) for spec, name in zip(aggregate.projections, names, strict=True)]
    return replace(aggregate, projections=specs)


class Verification:
    """One run; `verify` creates it."""

    def __init__(
        self,
        sources: Sources,
        aggregates: Sequence[Aggregate],
        sagas: Sequence[SagaSpec],
        incarnation: str,
        *,
        standby: bool,
        within: float,
        max_findings: int,
        all_contexts: bool = False,
        observe: Callable[[int, int], None] = lambda _done, _total: None,
        rest: Rest | None = None,
    ) -> None:
        self._rest = rest
        self._sources, self._incarnation, self._standby = sources, incarnation, standby
        self._aggregates = {aggregate.stream_type: aggregate for aggregate in aggregates}
        self._sagas = sagas
        self._within, self._all_contexts, self._observe = within, all_contexts, observe
        self._report = Report(max_findings)
        self._counts = Counts(self._report.counts)
        specs = [spec for aggregate in aggregates for spec in aggregate.projections]
        self._projections = Projections(specs, sources, incarnation, standby)

    async def run(self) -> Report:
        await self._check_stream()
        await self._projections.read_event_counters()
        await self._check_aggregates()
        await self._check_unmatched_messages()
        await self._check_projections()
        await sagas.check(
            self._sources.postgres,
            self._sagas,
            self._aggregates,
            self._report,
            self._within,
            all_contexts=self._all_contexts,
        )
        if foreign := self._sources.stream.foreign:
            self._report.notes.append(f"{foreign:,} foreign messages in the stream, which all readers skip")
        rows = await self._sources.postgres.fetch(SKIPPED)
        self._report.skipped += [SkippedEvent(*row) for row in rows]
        return self._report

    async def _check_stream(self) -> None:
        """Wait until the stream is complete and belongs to this database, then read it."""
        contents, deadline = self._sources.stream, monotonic() + self._within

        async def check() -> Sequence[Problem]:
            return await event_stream.check_identity(contents, self._incarnation)

        self._report.add_all(await confirm(check, deadline))
        if await contents.read_identity():
            await self._read_stream()

    async def _read_stream(self) -> None:
        last_position = await self._sources.postgres.read_last_position()
        strays = await self._sources.stream.read_new_messages(last_position)
        self._report.add_all(map(event_stream.describe_stray, strays))

    async def _check_aggregates(self) -> None:
        """Compare all streams, then the tables beside them, then the streams with problems once more."""
        fingerprints = await self._sources.postgres.read_newest_fingerprints()
        aggregates = Aggregates(self._aggregates, self._sources, fingerprints, self._standby)
        queue, after = RecheckQueue(PAGE_SIZE), ""
        last_position = await self._sources.postgres.read_last_position()
        while targets := await self._sources.postgres.read_versions(after):
            queue.add(targets, await aggregates.check(targets, self._counts))
            after = next(reversed(targets))
            self._observe(self._report.counts["events"], last_position)
            if self._rest is not None:
                await self._rest(len(targets))
                if self._sources.stream.epoch:  # or all streams that changed meanwhile were checked again
                    await self._read_stream()
        for stream_type, count in self._counts.without_fold.items():
            note = f"{count:,} streams of {stream_type} have no fold: only versions and rows compared"
            self._report.notes.append(note)
        async for problem in tables.check(self._sources.postgres, self._report.counts):
            self._report.add(problem)

        async def recheck(targets: Mapping[str, int]) -> Mapping[str, Sequence[Problem]]:
            if self._sources.stream.epoch:
                await self._read_stream()
            return await aggregates.check(targets, Counts())

        unstable = await queue.run(recheck, self._report.add, monotonic() + self._within)
        if unstable:
            self._report.notes.append(f"{unstable:,} streams changed during every check: not compared")

    async def _check_unmatched_messages(self) -> None:
        self._report.counts["messages"] = self._sources.stream.last_sequence
        async for problem in event_stream.check_unmatched(self._sources, self._standby):
            self._report.add(problem)

    async def _check_projections(self) -> None:
        for spec in self._projections.specs:
            report = await self._projections.check(
                spec, self._counts.expected, self._report.max_findings, self._within
            )
            self._report.merge(report)
            if spec.search is not None:
                deadline = monotonic() + self._within
                await search_indexes.check(self._sources.redis, spec, self._report, deadline)
