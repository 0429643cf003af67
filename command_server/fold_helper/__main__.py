"""The fold helper: reads requests from stdin, and writes reports to stdout. It ends when stdin is closed."""

import asyncio
import os
import signal
import sys
from importlib import import_module

from command_server.fold_helper.messages import FoldReport, FoldRequest, read_request, read_start, write_line
from command_server.fold_helper.store import HelperStore
from command_server.kernel.batch import NotFolded
from command_server.kernel.context import AggregateType, aggregate_types
from command_server.kernel.fold import Pace
from command_server.kernel.snapshot import FoldedState
from command_server.kernel.stream_folder import StreamFolder
from contracts.streams import stream_type

ALONE = Pace(chunk_size=400, slice=0.001, max_yield=0.0)
"""PostgreSQL reads a chunk at its own priority, so a larger one delays commands. The next one is requested
after the first slice."""
REPORT_INTERVAL = 1.0
"""Seconds between two reports that say that the helper is at work."""


class FoldHelper:
    """Folds streams on request.

    Args:
        aggregates: every aggregate by stream type.
        store: of events and kept snapshots.
        reports: the descriptor to which reports are written.
    """

    def __init__(self, aggregates: dict[str, AggregateType], store: HelperStore, reports: int) -> None:
        self._aggregates = aggregates
        self._reports = reports
        self._events: dict[str, int] = {}
        self._folder = StreamFolder(store, aggregates, self._note_fold, pace=ALONE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, requests: asyncio.StreamReader) -> None:
        """Fold until there are no more requests; then keep the states that were reached."""
        reporting = asyncio.create_task(self._report_work())
        while line := await requests.readline():
            task = asyncio.create_task(self._fold(read_request(line)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        reporting.cancel()
        await self._folder.close()
        await asyncio.gather(reporting, *self._tasks, return_exceptions=True)  # the server may be gone

    async def _fold(self, request: FoldRequest) -> None:
        base = FoldedState(self._aggregates[stream_type(request.stream)].initial, 0)
        report = FoldReport(request.stream)
        try:
            await self._folder.fold(NotFolded(request.stream, base, request.version))
        except Exception as error:  # the server folds the rest itself, and reports what is wrong
            report.error = repr(error)
        report.events = self._events.pop(request.stream, 0)
        self._write(report)

    def _note_fold(self, stream: str, events: int, _seconds: float) -> None:
        self._events[stream] = events

    async def _report_work(self) -> None:
        while True:
            self._write(FoldReport())
            await asyncio.sleep(REPORT_INTERVAL)

    def _write(self, report: FoldReport) -> None:
        os.write(self._reports, write_line(report))


async def main(reports: int) -> None:
    """Run the helper until stdin is closed."""
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    start = read_start(await requests.readline())
    contexts = [import_module(module).CONTEXT for module in start.modules]
    store = HelperStore(start.database_url, start.session, start.keys)
    await FoldHelper(aggregate_types(contexts), store, reports).run(requests)


def lower_priority() -> None:
    """Let this process run only when a core has nothing else to do, or else at the lowest priority."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # another system than Linux, or a container that forbids it
        os.nice(19)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with the server, which may need it until then
        signal.signal(number, signal.SIG_IGN)
    lower_priority()
    reports = os.dup(1)
    os.dup2(2, 1)  # a module that prints must not write between the reports
    asyncio.run(main(reports))
