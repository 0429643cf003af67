"""Delivers the waiting events of parked streams beside the feeds.

How it works. A feed names the parked streams that it came across, at its start and with every batch. Each is
delivered by a task of its own, at most MAX_REPLAYS at once, slice by slice (`Engine.deliver_parked`), with a
pause between two slices for as long as a slice took: the feeds of all other streams go on. A stream whose
next event fails is tried again after a pause that doubles up to MAX_PAUSE, however many events arrive
meanwhile. Everything here is a hint: the rows of the parked streams decide, and the next start of a feed
names them again.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic

from process_manager.engine import Engine
from process_manager.groups.delivery import Progress
from process_manager.leases import Leases
from process_manager.postgres.due_work import Feed
from runtime.backoff import compute_pause
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait

MAX_REPLAYS = 8
"""Streams that are delivered at once, at most."""
STOP_INTERVAL = 0.5
"""Seconds between two checks of whether the process stops."""
INITIAL_PAUSE, MAX_PAUSE = 0.5, 30.0
"""Seconds between two attempts at a stream whose next event fails."""
MAX_REST = 0.25
"""Seconds between two slices of a stream, at most."""

log = logs.get_logger(__name__)


@dataclass
class _Waiting:
    """A parked stream that is to be delivered."""

    feed: Feed
    stream: str
    due: float = 0.0
    failures: int = 0
    requested: bool = False
    """Whether it was requested again while it was delivered."""
    task: asyncio.Task[Progress] | None = None


class StreamReplayer:
    """Delivers parked streams of the partitions that this process has leased.

    Args:
        engine: delivers the events.
        leases: the leased partitions.
    """

    def __init__(self, engine: Engine, leases: Leases) -> None:
        self._engine = engine
        self._leases = leases
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._requested = asyncio.Event()

    def request(self, feed: Feed, parked: Iterable[str]) -> None:
        """Deliver these streams soon, unless they wait for their next attempt."""
        for stream in parked:
            waiting = self._waiting.setdefault((feed.saga, stream), _Waiting(feed, stream))
            waiting.requested = True
            self._requested.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver streams until the process stops."""
        try:
            while not stopping.is_set():
                self._start_due()
                await self._wait()
                self._collect_results()
        finally:
            await cancel_and_wait(*(each.task for each in self._waiting.values() if each.task))

    def _start_due(self) -> None:
        active = sum(each.task is not None for each in self._waiting.values())
        for key, each in list(self._waiting.items()):
            if each.task is not None or each.due > monotonic():
                continue
            if each.feed.partition not in self._leases.partitions:
                del self._waiting[key]  # the next holder of the lease finds the row
            elif active < MAX_REPLAYS:
                active += 1
                each.requested = False
                each.task = asyncio.create_task(self._deliver(each))

    async def _deliver(self, waiting: _Waiting) -> Progress:
        while waiting.feed.partition in self._leases.partitions:
            began = monotonic()
            progress = await self._engine.deliver_parked(waiting.feed, waiting.stream)
            if progress is not Progress.MORE:
                return progress
            waiting.failures = 0
            await asyncio.sleep(min(MAX_REST, monotonic() - began))
        return Progress.ENDED

    async def _wait(self) -> None:
        """Wait until a task has ended, a stream was requested or is due, at most STOP_INTERVAL."""
        requested = asyncio.create_task(self._requested.wait())
        tasks = [each.task for each in self._waiting.values() if each.task is not None]
        due = [each.due - monotonic() for each in self._waiting.values() if each.task is None]
        full = len(tasks) >= MAX_REPLAYS
        try:
            await asyncio.wait(
                {requested, *tasks},
                timeout=STOP_INTERVAL if full else max(0.0, min([STOP_INTERVAL, *due])),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            requested.cancel()
        self._requested.clear()

    def _collect_results(self) -> None:
        for key, each in list(self._waiting.items()):
            if each.task is None or not each.task.done():
                continue
            ended = self._is_ended(each, each.task)
            each.task = None
            if ended and not each.requested:
                del self._waiting[key]
            elif not ended:
                each.due = monotonic() + compute_pause(each.failures, INITIAL_PAUSE, MAX_PAUSE)
                each.failures += 1

    def _is_ended(self, waiting: _Waiting, task: asyncio.Task[Progress]) -> bool:
        """Return whether a stream is delivered; log the error of a delivery that an outage has ended."""
        try:
            return task.result() is Progress.ENDED
        except Exception as error:  # must not stop the other streams
            log.warning("Replay failed", saga=waiting.feed.saga, stream=waiting.stream, error=repr(error))
            return False
