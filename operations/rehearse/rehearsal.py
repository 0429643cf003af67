"""A rehearsal from beginning to end; `Rehearsal.run` is its table of contents.

How it works. One connection takes a snapshot of the database and reads the streams in pages of some thousand
events. Each page is rehearsed by a process of its own pool, or by this one. Views that already include later
events are looked at once more at the end, with the events that are on record by then. Nothing is written
anywhere. In memory are some pages and the report.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import monotonic
from typing import Self
from zlib import crc32

from contracts import streams
from operations.rehearse.installed_code import InstalledCode, load_code
from operations.rehearse.recorded import Record
from operations.rehearse.report import Report
from operations.rehearse.saga_records import read_keys
from operations.rehearse.stored_views import StoredViews
from operations.rehearse.stream_rehearsal import PageResult, Pair
from operations.rehearse.workers import Deadlines, Job, MovedViews, SagaPage, StreamPage, Task, Workers
from runtime.process.key_file import read_ring
from runtime.process.settings import Settings

PAGES_AHEAD = 2
"""Pages that wait for each process."""
SECOND_PAGE = 500
"""Views that are looked at again at once."""


@dataclass(frozen=True)
class Options:
    """What to rehearse, and how fast."""

    projections: Collection[str] = ()
    """Projections to rehearse alone; none for everything."""
    sample: float = 1.0
    """The share of the streams."""
    processes: int = 1
    """1 for this process alone."""
    rate: int = 0
    """Events a second, at most; 0 for no limit."""
    observe: Callable[[int, int], None] = field(default=lambda _done, _total: None)
    """Called with the number of events that are rehearsed, and that of all."""


async def rehearse(settings: Settings, options: Options) -> Report:
    """Run the installed code over the recorded events, and compare.

    Raises:
        StartError: a context or a projection is unknown, or Redis is unreachable.
        UNREACHABLE: PostgreSQL is unreachable.
    """
    code = load_code(settings, options.projections)
    record = Record(settings.database_url, partial(read_ring, settings.keys))
    try:
        await record.begin()
        return await Rehearsal(settings, options, code, record).run()
    finally:
        await record.close()


class Rehearsal:
    """One run; `rehearse` creates it."""

    def __init__(self, settings: Settings, options: Options, code: InstalledCode, record: Record) -> None:
        self._settings, self._options, self._code, self._record = settings, options, code, record
        self._report = Report(Counter(dict.fromkeys(("events", "streams"), 0)))
        self._moved: list[Pair] = []
        self._began = monotonic()

    async def run(self) -> Report:
        serving = await self._find_serving()
        job = Job(
            self._settings, tuple(self._options.projections), await self._record.export_snapshot(), serving
        )
        async with Workers(job, self._options.processes) as workers:
            await self._rehearse_streams(workers)
            await self._rehearse_sagas(workers)
            await self._look_again(workers)
        return self._report

    async def _find_serving(self) -> dict[str, str]:
        """Return the generations of views that can be compared, by projection."""
        views = [each.view for each in self._code.list_projections()]
        async with StoredViews(self._settings.redis_url) as stored:
            serving = await stored.find_serving(views)
        for view in views:
            if view.projection not in serving:
                note = f"projection is not built, so its views are not compared: {view.projection}"
                self._report.notes[note] += 1
        return serving

    async def _rehearse_streams(self, workers: Workers) -> None:
        total = int(await self._record.count_events() * self._options.sample)
        async with Dispatcher(workers, self._options.processes, self._collect) as dispatcher:
            async for page in self._read_pages():
                await dispatcher.add(StreamPage(page))
                self._options.observe(self._report.counts["events"], total)
                await self._slow_down()

    async def _rehearse_sagas(self, workers: Workers) -> None:
        async with Dispatcher(workers, self._options.processes, self._collect) as dispatcher:
            async for keys in read_keys(self._record, [saga.name for saga in self._code.sagas]):
                if chosen := [key for key in keys if self._is_chosen(key[1])]:
                    await dispatcher.add(SagaPage(chosen))
            for saga in self._code.sagas:
                await dispatcher.add(Deadlines(saga.name))

    async def _look_again(self, workers: Workers) -> None:
        """Compare the views that have moved."""
        moved, self._moved = iter(self._moved), []
        async with Dispatcher(workers, self._options.processes, self._collect) as dispatcher:
            while pairs := list(islice(moved, SECOND_PAGE)):
                await dispatcher.add(MovedViews(pairs))

    def _is_chosen(self, id_: str) -> bool:
        """Return whether an aggregate or an instance belongs to the sample."""
        return crc32(id_.encode()) < self._options.sample * 2**32

    async def _read_pages(self) -> AsyncIterator[dict[str, int]]:
        async for page in self._record.read_pages(self._code.stream_types):
            chosen = {
                name: version for name, version in page.items() if self._is_chosen(streams.aggregate_id(name))
            }
            if chosen:
                yield chosen

    async def _slow_down(self) -> None:
        """Wait while more events were rehearsed than the rate allows."""
        if self._options.rate:
            due = self._began + self._report.counts["events"] / self._options.rate
            await asyncio.sleep(max(0.0, due - monotonic()))

    def _collect(self, result: PageResult) -> None:
        self._report.merge(result.report)
        self._moved += result.moved


class Dispatcher:
    """Gives tasks to workers, some ahead of their work. Leaving the context waits for all of them.

    Args:
        workers: the workers.
        processes: their number.
        collect: called with each result.
    """

    def __init__(self, workers: Workers, processes: int, collect: Callable[[PageResult], None]) -> None:
        self._workers, self._limit, self._collect = workers, PAGES_AHEAD * processes, collect
        self._running: set[asyncio.Task[PageResult]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        while self._running and kind is None:
            await self._wait()
        for task in self._running:
            task.cancel()

    async def add(self, task: Task) -> None:
        """Dispatch a task; wait while enough of them are under way."""
        self._running.add(asyncio.create_task(self._workers.run(task)))
        if len(self._running) >= self._limit:
            await self._wait()

    async def _wait(self) -> None:
        """Wait for a result."""
        done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            self._collect(each.result())
