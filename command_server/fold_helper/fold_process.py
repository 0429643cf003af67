"""The server's side of the fold helper: starts the process, sends requests and receives reports."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic

from command_server.fold_helper.child_process import ChildProcess
from command_server.fold_helper.messages import FoldReport, FoldRequest, Start, read_report, write_line
from runtime.process import logs

log = logs.get_logger(__name__)

MIN_EVENTS = 30_000
"""Events to fold for which the process is started: a third of a second of folding. It takes half a second to
start, and several if all cores are busy."""
MIN_CORES = 2
"""Cores without which the server folds all events itself. What the process takes of a container's time would
be missing from the server, whatever its priority."""
CONTAINER_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""The limit of a container: microseconds of all cores together, and of real time."""
IDLE_TIME = 30.0
"""Seconds without a request after which the process ends."""
SILENCE_LIMIT = 5.0
"""Seconds without a report after which the process is killed."""
START_TIME = 5.0
"""Seconds that the process may take to start."""
MIN_RATE = 40_000
"""Events a second that the process must fold: a third of what it folds on an idle core. It gets no time while
all cores are busy; then the server must fold the events itself, since it has its share of the time."""
RETRY_TIME = 60.0
"""Seconds after a failure until the process is started again."""
CLOSE_TIMEOUT = 2.0
"""Seconds within which the process keeps its states when the server stops."""


class FoldProcess:
    """A fold helper that runs while it is needed; see `kernel.fold.FoldHelper`.

    Args:
        database_url: of the event store.
        session: PostgreSQL parameters of its session.
        modules: the modules with the contexts.
        keys: the path of the key ring, with which personal data is opened.
    """

    def __init__(
        self, database_url: str, session: Mapping[str, str], modules: Sequence[str], keys: str = ""
    ) -> None:
        self._start = Start(database_url, dict(session), list(modules), keys)
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._unsent: list[FoldRequest] = []
        self._process: ChildProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline = self._retry_at = -inf
        self._closed = False

    def takes(self, events: int) -> bool:
        return (
            events >= MIN_EVENTS
            and not self._closed
            and monotonic() >= self._retry_at
            and count_cores() >= MIN_CORES
        )

    async def fold(self, stream: str, version: int) -> int:
        if stream not in self._waiting:
            self._waiting[stream] = asyncio.get_running_loop().create_future()
            self._unsent.append(FoldRequest(stream, version))
            self._extend_deadline(version / MIN_RATE)
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run(), name="fold helper")
            self._send()
        return await asyncio.shield(self._waiting[stream])

    async def close(self) -> None:
        self._closed = True
        if self._task is None:
            return
        if self._process is not None:
            self._process.close_stdin()
            await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting and not self._closed:
            await self._run_process()

    def _extend_deadline(self, seconds: float) -> None:
        self._deadline = max(self._deadline, monotonic()) + seconds

    async def _run_process(self) -> None:
        """Run a process until it is idle or fails."""
        self._extend_deadline(START_TIME)
        try:
            self._process = await ChildProcess.start([sys.executable, "-m", "command_server.fold_helper"])
            self._send(self._start)
            await self._receive(self._process.stdout)
        except Exception as error:
            self._retry_at = monotonic() + RETRY_TIME
            log.warning("Fold helper failed", error=str(error) or repr(error), retry_after=RETRY_TIME)
        finally:
            process, self._process = self._process, None
            self._unsent.clear()
            for stream in list(self._waiting):
                self._end(FoldReport(stream))
            if process is not None:
                await process.stop(CLOSE_TIMEOUT)

    async def _receive(self, reports: asyncio.StreamReader) -> None:
        """Take reports until the process is idle."""
        idle_since = monotonic()
        while self._waiting or monotonic() < idle_since + IDLE_TIME:
            try:
                line = await asyncio.wait_for(reports.readline(), SILENCE_LIMIT)
            except TimeoutError:
                if not self._waiting:
                    return
                raise RuntimeError(f"no report for {SILENCE_LIMIT} s") from None
            if not line:
                if self._closed:
                    return
                raise RuntimeError("the process ended")
            self._end(read_report(line))
            if self._waiting:
                idle_since = monotonic()
                if idle_since > self._deadline:
                    raise RuntimeError(f"folds fewer than {MIN_RATE} events a second")

    def _send(self, *first: Start) -> None:
        """Send the requests that wait for the process; without a process they go on waiting."""
        if self._process is None:
            return
        messages, self._unsent = [*first, *self._unsent], []
        self._process.write(b"".join(map(write_line, messages)))

    def _end(self, report: FoldReport) -> None:
        if report.error:
            log.warning("Fold failed in helper", stream=report.stream, error=report.error)
        waiting = self._waiting.pop(report.stream, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(report.events)


def count_cores() -> float:
    """Return the number of cores that this process and its children may use together."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):  # no limit, or not of a form that is known
        used, real = CONTAINER_LIMIT.read_text().split()
        cores = min(cores, int(used) / int(real))
    return cores
