"""The whole of `diptych verify`, from beginning to end.

One pass over all streams, then further looks at what was wrong or behind. In memory are, besides a page of
streams: 17 bytes for each event (feed.py), the names of the streams to look at again, and a number for each
sorted set and each counter in Redis.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice
from time import monotonic

from operations.verify.checks import event_counters, sagas
from operations.verify.checks.aggregates import Aggregates, Counts
from operations.verify.checks.checkpoints import check_stream
from operations.verify.checks.projections import Projections
from operations.verify.contexts import banking, inventory, ordering
from operations.verify.model import Aggregate, Reading
from operations.verify.recheck import Suspects, settled
from operations.verify.report import Problem, Report
from operations.verify.sources import statements
from operations.verify.sources.event_store import PAGE, Store
from operations.verify.sources.read_model import ReadModel
from operations.verify.sources.stream import Feed
from runtime.jetstream import Connection, connect
from runtime.process.settings import Settings

AGGREGATES: tuple[Aggregate, ...] = (ordering.ORDER, *inventory.AGGREGATES, *banking.AGGREGATES)
"""Every aggregate there is, each with its own fold."""

READY = 5.0
"""Seconds that NATS has to answer."""


async def verify(
    settings: Settings,
    *,
    within: float = 60.0,
    shown: int = 20,
    aggregates: Sequence[Aggregate] = AGGREGATES,
) -> Report:
    """Compare everything, and return what was found.

    Args:
        settings: where the servers are.
        within: seconds that what is behind has to catch up, at each step.
        shown: how many findings of each check are kept.
        aggregates: what can be folded.

    Raises:
        one of operations.unreachable.AWAY, StreamChanged, ReaderLost: it could not be checked.
    """
    store, redis = Store(settings.database_url), ReadModel(settings.redis_url)
    connection = await connect(settings.nats_url, "verify")
    try:
        async with asyncio.timeout(READY):
            await connection.ready()
        return await Verification(store, connection, redis, aggregates, within, Report(shown)).run()
    finally:
        await connection.close()
        await redis.close()
        await store.close()


class Verification:
    """One run."""

    def __init__(
        self,
        store: Store,
        connection: Connection,
        redis: ReadModel,
        aggregates: Sequence[Aggregate],
        within: float,
        report: Report,
    ) -> None:
        self._store, self._redis, self._feed = store, redis, Feed(connection)
        self._known = {aggregate.stream_type: aggregate for aggregate in aggregates}
        self._within = within
        self._report, self._counts = report, Counts(report.counted)
        self._incarnation, self._standby = "", False

    async def run(self) -> Report:
        """Check everything."""
        ((self._incarnation, self._standby),) = await self._store.rows(statements.INCARNATION)
        await self._stream()
        tallied = [reading for reading in self._readings() if reading.tallies]
        before = {reading.name: await event_counters.look(self._redis, reading) for reading in tallied}
        suspects, aggregates = Suspects(), await self._aggregates()
        await self._all_streams(aggregates, suspects)
        await self._tables()

        async def look(targets: Mapping[str, int]) -> Mapping[str, Sequence[Problem]]:
            await self._read_on()
            return await aggregates.look(targets, Counts())

        await suspects.settle(look, self._report, monotonic() + self._within)
        await self._foreign_messages()
        await self._projections(before)
        await sagas.check(self._store, self._report, self._within)
        return self._report

    async def _aggregates(self) -> Aggregates:
        newest = {row.type: row.fingerprint for row in await self._store.rows(statements.NEWEST_FINGERPRINTS)}
        return Aggregates(self._known, self._store, self._feed, self._redis, newest, self._standby)

    async def _stream(self) -> None:
        """Read the stream, once it is this database's and filled."""
        deadline = monotonic() + self._within
        self._report.add_all(await settled(lambda: check_stream(self._feed, self._incarnation), deadline))
        if await self._feed.identity():
            await self._read_on(first=True)

    async def _read_on(self, *, first: bool = False) -> None:
        if first or self._feed.epoch:
            self._report.add_all(await self._feed.read_on(await self._store.last_position()))

    async def _all_streams(self, aggregates: Aggregates, suspects: Suspects) -> None:
        after = ""
        while targets := await self._store.names(after):
            suspects.note(targets, await aggregates.look(targets, self._counts))
            after = next(reversed(targets))
        for kind, count in self._counts.unknown.items():
            self._report.notes.append(f"{count:,} streams of {kind} have no fold here: their versions alone")

    async def _tables(self) -> None:
        """Check the tables beside the events."""
        ((rows, pending),) = await self._store.rows(statements.OUTBOX)
        self._report.counted.update(outbox=rows, pending=pending)
        for (position,) in await self._store.rows(statements.ORPHANS):
            self._report.add(Problem("outbox", f"outbox {position}", "there is no event at this position"))
        async for page in self._store.receipts():
            self._report.counted["requests"] += len(page)
            for caller, request_id, missing in page:
                if missing is not None:
                    text = f"its receipt names {missing}, which does not exist"
                    self._report.add(Problem("requests", f"request {request_id} of {caller}", text))

    def _readings(self) -> Iterator[Reading]:
        return (reading for aggregate in self._known.values() for reading in aggregate.readings)

    async def _projections(self, before: Mapping[str, event_counters.Look]) -> None:
        """Check what is in Redis that no look at an aggregate has seen."""
        projections = Projections(
            self._store, self._redis, self._feed, self._incarnation, self._standby, self._counts.tally, before
        )
        for reading in self._readings():
            self._report.take(await projections.look(reading, self._report.shown, self._within))

    async def _foreign_messages(self) -> None:
        """Check the messages whose events came after the streams were read, or do not exist."""
        self._report.counted["messages"] = self._feed.reached
        async for page in _pages(self._feed.unmatched()):
            sequences = dict(page)
            events = await self._store.at(list(sequences))
            for position, sequence in sequences.items():
                event = events.get(position)
                if event is None and not self._standby:
                    text = f"PostgreSQL has no event at its position {position}"
                    self._report.add(Problem("stream", f"message {sequence}", text))
                elif event is not None and not self._feed.holds(event):
                    text = f"message {sequence} is not what PostgreSQL has"
                    self._report.add(Problem("stream", f"event {event.id}", text))


async def _pages(items: Iterator[tuple[int, int]]) -> AsyncIterator[list[tuple[int, int]]]:
    while page := list(islice(items, PAGE)):
        yield page
