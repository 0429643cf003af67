"""Group commit: one writer executes all commands of a process, those that wait together in one transaction.

While a commit is under way the next batch gathers, and as long as more commands come, so batches grow with
the load by themselves.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

from command_server.kernel.batch import Batch, NotLoaded, Request
from command_server.kernel.context import AggregateType
from command_server.kernel.loading import load
from command_server.kernel.outcomes import DeadlinePassed, Outcome, Overloaded
from command_server.kernel.ports import EventStore, StoreConflict, StoreUnavailable
from runtime.batching import AdaptiveBatcher

BATCH = 256
"""How many commands share a transaction at the most."""
RERUNS = 2
"""How often a batch is run again after a conflict or a lost connection."""
MAX_WAIT = 0.02
"""Seconds that a batch waits for company at the most, and only while more comes: it raises the rate and
cuts the mean latency under load. A lone command never waits."""
LONGEST_WAIT = 1.0
"""Seconds after which a command that still waits for its turn makes the next ones be refused."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended, in which incarnation of the database."""

    outcome: Outcome
    incarnation: str


@dataclass(slots=True)
class _Waiting:
    request: Request
    answer: "asyncio.Future[CommandResult]"


class GroupCommit:
    """Executes commands: `execute` hands one in and waits, `run` is the one writer.

    Args:
        store: where streams, events and requests are kept.
        aggregates: every aggregate by the type of its streams.
        committed: called after each commit that recorded events; wakes the relay.
        clock: the time in UTC.
    """

    def __init__(
        self,
        store: EventStore,
        aggregates: Mapping[str, AggregateType],
        committed: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._aggregates = aggregates
        self._committed = committed
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._batch_ready = asyncio.Event()
        self._closed = False

    async def execute(self, request: Request) -> CommandResult:
        """Return how a command ended, once that is durable.

        Raises:
            RequestIdReused, DeadlinePassed, Overloaded: see there.
            StoreUnavailable: the store is away; whether the command took effect is unknown, and a retry
                with the same request id finds out.
            Exception: the command's own code or data made it fail; it changed nothing.
        """
        if self._waiting and request.arrived - self._waiting[0].request.arrived > LONGEST_WAIT:
            raise Overloaded
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Execute what arrives, until `close`."""
        batcher = AdaptiveBatcher(lambda: len(self._waiting), self._batch_ready.set, MAX_WAIT)
        while True:
            while not self._waiting:
                if self._closed:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            self._batch_ready.clear()
            batcher.begin()
            await self._batch_ready.wait()
            await self._execute(self._take())

    def close(self) -> None:
        """Let `run` return once everything that waits is executed."""
        self._closed = True
        self._arrived.set()

    def _take(self) -> list[_Waiting]:
        """Return the commands of the next batch; those whose caller has given up are left out."""
        batch: list[_Waiting] = []
        now = perf_counter()
        while self._waiting and len(batch) < BATCH:
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                continue
            if waiting.request.deadline is not None and waiting.request.deadline <= now:
                waiting.answer.set_exception(DeadlinePassed())
            else:
                batch.append(waiting)
        return batch

    async def _execute(self, batch: Sequence[_Waiting]) -> None:
        """Answer a batch; where it fails as a whole, each of its commands alone."""
        if not batch:
            return
        try:
            await self._commit_persistently(batch)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, StoreUnavailable):
                _fail(batch, error)
                return
            for waiting in batch:
                await self._execute([waiting])

    async def _commit_persistently(self, batch: Sequence[_Waiting]) -> None:
        for _ in range(RERUNS):
            try:
                return await self._commit(batch)
            except (StoreConflict, StoreUnavailable):
                continue
        return await self._commit(batch)

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        requests = [waiting.request for waiting in batch]
        async with self._store.begin() as transaction:
            streams = await load(transaction, self._aggregates, requests)
            known = await transaction.find_requests({request.key for request in requests})
            decisions = Batch(streams, known.requests, self._clock)
            results = [_decide(decisions, request) for request in requests]
            changes = decisions.changes()
            if changes.requests:
                await transaction.write(changes)
        if changes.events:
            self._committed()
        for waiting, result in reversed(list(zip(batch, results, strict=True))):
            if isinstance(result, NotLoaded):
                self._waiting.appendleft(waiting)
            else:
                _answer(waiting, result, known.incarnation)


def _decide(decisions: Batch, request: Request) -> Outcome | Exception:
    try:
        return decisions.decide(request)
    except Exception as error:  # one command's bug is that command's alone
        return error


def _answer(waiting: _Waiting, result: Outcome | Exception, incarnation: str) -> None:
    if isinstance(result, Exception):
        _fail([waiting], result)
    elif not waiting.answer.done():
        waiting.answer.set_result(CommandResult(result, incarnation))


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
