"""The processes of a rehearsal: each has its own connections and code, and rehearses one page at a time."""

import asyncio
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Self

from operations.rehearse.installed_code import load_code
from operations.rehearse.recorded import Record
from operations.rehearse.saga_records import Key
from operations.rehearse.saga_rehearsal import SagaRehearsal
from operations.rehearse.stored_views import StoredViews
from operations.rehearse.stream_rehearsal import PageResult, Pair, StreamRehearsal
from runtime.process import logs
from runtime.process.key_file import read_ring
from runtime.process.settings import Settings
from runtime.process.start_error import NotAsked


@dataclass(frozen=True)
class Job:
    """What every process needs to know."""

    settings: Settings
    projections: Sequence[str]
    snapshot: str
    """The name of the exported snapshot."""
    serving: Mapping[str, str]
    """The generations to compare, by projection."""


@dataclass(frozen=True)
class StreamPage:
    """Compare the states and views of these streams, which have these versions."""

    versions: Mapping[str, int]


@dataclass(frozen=True)
class MovedViews:
    """Compare these views once more, with the events that are on record by then."""

    pairs: Sequence[Pair]


@dataclass(frozen=True)
class SagaPage:
    """Compare these instances of sagas."""

    keys: Sequence[Key]


@dataclass(frozen=True)
class Deadlines:
    """Compare the deadlines of a saga."""

    saga: str


Task = StreamPage | MovedViews | SagaPage | Deadlines


class Worker:
    """The connections and the code of one process. Entering the context connects."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = asyncio.Lock()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        job, record = (
            self._job,
            Record(self._job.settings.database_url, partial(read_ring, self._job.settings.keys)),
        )
        self._open.push_async_callback(record.close)
        await record.begin(job.snapshot)
        views = await self._open.enter_async_context(StoredViews(job.settings.redis_url))
        code = load_code(job.settings, job.projections)
        self._streams = StreamRehearsal(code, record, views, job.serving)
        self._sagas = SagaRehearsal(code, record)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def run(self, task: Task) -> PageResult:
        """Execute one task at a time."""
        async with self._lock:
            match task:
                case StreamPage(page):
                    return await self._streams.rehearse(page)
                case MovedViews(pairs):
                    return await self._streams.rehearse_again(pairs)
                case SagaPage(keys):
                    return PageResult(await self._sagas.rehearse(keys))
                case Deadlines(saga):
                    return PageResult(await self._sagas.rehearse_deadlines(saga))


class Workers:
    """A pool of processes, or this process alone. Leaving the context ends them.

    Args:
        job: what they do.
        processes: their number; 1 for this process.
    """

    def __init__(self, job: Job, processes: int) -> None:
        self._job, self._processes = job, processes
        self._own: Worker | None = None
        self._pool: ProcessPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        if self._processes == 1:
            self._own = await Worker(self._job).__aenter__()
        else:
            self._pool = ProcessPoolExecutor(
                self._processes, get_context("spawn"), initializer=_begin, initargs=(self._job,)
            )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._own is not None:
            await self._own.__aexit__(*error)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, task: Task) -> PageResult:
        """Execute a task in any of the processes.

        Raises:
            NotAsked: a process has ended.
        """
        if self._own is not None:
            return await self._own.run(task)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _run, task)
        except BrokenExecutor as error:
            raise NotAsked("a process of the rehearsal has ended") from error


class _Process:
    """The worker of a process of the pool, and the event loop that it runs on."""

    def __init__(self, job: Job) -> None:
        self._runner = asyncio.Runner()
        self.worker = self.run(Worker(job).__aenter__())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)


_process: _Process | None = None


def _begin(job: Job) -> None:
    """Connect, once in each process; the parent alone reacts to Ctrl-C."""
    global _process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure("error", "console", sys.stderr.buffer)
    _process = _Process(job)


def _run(task: Task) -> PageResult:
    assert _process is not None  # noqa: S101 - the pool has called `_begin`
    result: PageResult = _process.run(_process.worker.run(task))
    return result
