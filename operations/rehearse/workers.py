"""The processes of a rehearsal: each has its own connections and code, and rehearses one page at a time."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Self

from operations.rehearse.installed_code import load_code
from operations.rehearse.recorded import Record
from operations.rehearse.stored_views import StoredViews
from operations.rehearse.stream_rehearsal import PageResult, Pair, StreamRehearsal
from runtime.process import logs
from runtime.process.settings import Settings


@dataclass(frozen=True)
class Job:
    """What every process needs to know."""

    settings: Settings
    projections: Sequence[str]
    snapshot: str
    """The name of the exported snapshot."""
    serving: Mapping[str, str]
    """The generations to compare, by projection."""


class Worker:
    """The connections and the code of one process. Entering the context connects."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = asyncio.Lock()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        job, record = self._job, Record(self._job.settings.database_url)
        self._open.push_async_callback(record.close)
        await record.begin(job.snapshot)
        views = await self._open.enter_async_context(StoredViews(job.settings.redis_url))
        code = load_code(job.settings, job.projections)
        self._streams = StreamRehearsal(code, record, views, job.serving)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def rehearse(self, page: Mapping[str, int]) -> PageResult:
        async with self._lock:
            return await self._streams.rehearse(page)

    async def rehearse_again(self, pairs: Sequence[Pair]) -> PageResult:
        async with self._lock:
            return await self._streams.rehearse_again(pairs)


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

    async def rehearse(self, page: Mapping[str, int]) -> PageResult:
        if self._own is not None:
            return await self._own.rehearse(page)
        return await self._run(_rehearse, page)

    async def rehearse_again(self, pairs: Sequence[Pair]) -> PageResult:
        if self._own is not None:
            return await self._own.rehearse_again(pairs)
        return await self._run(_rehearse_again, pairs)

    async def _run(self, function: Callable[..., PageResult], argument: object) -> PageResult:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, argument)


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


def _rehearse(page: Mapping[str, int]) -> PageResult:
    assert _process is not None  # noqa: S101 - the pool has called `_begin`
    result: PageResult = _process.run(_process.worker.rehearse(page))
    return result


def _rehearse_again(pairs: Sequence[Pair]) -> PageResult:
    assert _process is not None  # noqa: S101 - the pool has called `_begin`
    result: PageResult = _process.run(_process.worker.rehearse_again(pairs))
    return result
