"""Group commit: the process's one writer executes all queued commands in one transaction per batch.

How it works. `execute` queues a command and waits for its future. `run` takes up to MAX_BATCH_SIZE commands,
loads and locks their streams, decides them in order of arrival, writes everything in one statement and
completes the futures after the commit. The next batch forms during the commit, so batches grow with the load.
A repetition of a recorded request does not wait for that commit. On StoreConflict or StoreUnavailable the
whole batch runs again: nothing of it is kept in memory, and request ids make a rerun safe even if the first
commit took effect. `rerun_budget.py` limits that, `admission.py` refuses commands that would wait too long,
and `deadline_watch.py` answers those whose deadline comes first. Any other error may come from a single
command, so the batch is divided until the faulty one fails alone (`isolation.py`), and further ones run apart
from the batches (`quarantine.py`). A command whose related streams were not loaded is decided in the next
batch. A command whose stream is long and has to be folded first waits for that outside the batches
(`stream_folder.py`), and so does one whose stream another transaction has locked for long (`lock_waits.py`),
while all others continue.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from time import perf_counter

from command_server.kernel.admission import Admission
from command_server.kernel.batch import Batch, NotFolded, NotLoaded, Request, StreamLocked
from command_server.kernel.clock import continue_from
from command_server.kernel.command_queue import MAX_BATCH_SIZE, CommandQueue
from command_server.kernel.context import AggregateType
from command_server.kernel.deadline_watch import DeadlineWatch
from command_server.kernel.fold import FoldHelper
from command_server.kernel.fold_waits import FoldWaits, merge_folded
from command_server.kernel.isolation import isolate
from command_server.kernel.lock_waits import LockWaits
from command_server.kernel.outcomes import CommandResult, Outcome, OutcomePending, Overloaded
from command_server.kernel.ports import (
    EventStore,
    RequestLookup,
    StoreConflict,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from command_server.kernel.quarantine import Quarantine
from command_server.kernel.queued_command import (
    QueuedCommand,
    complete,
    fail,
    is_awaited,
    is_waiting,
)
from command_server.kernel.request_ages import RequestAges
from command_server.kernel.request_hashes import RequestHashes
from command_server.kernel.rerun_budget import RerunBudget
from command_server.kernel.sealing import Sealing
from command_server.kernel.stream_folder import OnFolded, StreamFolder
from command_server.kernel.stream_loader import load_streams
from contracts.envelope import DEFAULT_MAX_PAYLOAD
from runtime.batching import AdaptiveBatcher

MAX_BATCH_WAIT = 0.02
"""Seconds that a batch may wait while more commands arrive. Under load, this raises the rate and lowers the
mean latency. A lone command does not wait."""


class GroupCommit:
    """Executes commands in batches. Callers await `execute`; one task runs `run`.

    Args:
        store: the store of streams, events and requests.
        aggregates: every aggregate by stream type.
        on_commit: called after each commit that recorded events; notifies the relay.
        on_time_set_aside: called after each commit that set times of streams aside, with their lead over the
            store's time by stream.
        on_folded: called after each fold of a long stream.
        keep_requests: how long answers to repeated requests are kept; None for no limit.
        fold_helper: folds long streams off the event loop.
        max_payload: returns the bytes that the message of an event may have.
        on_batch: called before each commit with the number of its commands, and the seconds for which the
            oldest of them has waited.
        hashes: computes and compares the hashes of recorded requests.
        sealing: seals personal data.
    """

    def __init__(
        self,
        store: EventStore,
        aggregates: Mapping[str, AggregateType],
        on_commit: Callable[[], None] = lambda: None,
        on_time_set_aside: Callable[[Mapping[str, timedelta]], None] = lambda _: None,
        on_folded: OnFolded = lambda *_: None,
        keep_requests: timedelta | None = None,
        fold_helper: FoldHelper | None = None,
        max_payload: Callable[[], int] = lambda: DEFAULT_MAX_PAYLOAD,
        on_batch: Callable[[int, float], None] = lambda *_: None,
        hashes: RequestHashes = RequestHashes(),  # noqa: B008 - without keys, immutable
        sealing: Sealing | None = None,
    ) -> None:
        self._store = store
        self._aggregates = aggregates
        self._on_commit = on_commit
        self._on_time_set_aside = on_time_set_aside
        self._keep_requests = keep_requests
        self._max_payload = max_payload
        self._on_batch = on_batch
        self._hashes = hashes
        self._sealing = sealing or Sealing()
        self._admission = Admission()
        self._deadlines = DeadlineWatch(self._answer_due)
        self._reruns = RerunBudget()
        self._work_available = asyncio.Event()
        self._queue = CommandQueue()
        self._batch: Sequence[QueuedCommand] = ()
        """The commands that are being executed."""
        self._has_locks = False
        """Whether they have locked their streams."""
        self._forms_batch = False
        self.folder = StreamFolder(store, aggregates, on_folded, lambda: self._forms_batch, fold_helper)
        self._fold_waits = FoldWaits(self.folder, self._put_back, self._work_available.set)
        self._lock_waits = LockWaits(self._put_back, self._work_available.set)
        self._quarantine = Quarantine()
        self._batch_ready = asyncio.Event()
        self._closed = False

    async def execute(self, request: Request) -> CommandResult:
        """Return the result of a command once it is durable.

        Raises:
            RequestIdReused: the caller has already used the request id for another request.
            RequestTooOld, RequestTooNew: the time that the request id carries forbids its execution.
            DeadlinePassed: the deadline came in the queue; the command was not executed.
            Overloaded: the command would wait, or has waited, too long for its commit; it was not executed.
            OutcomePending: the deadline is near, and the command is in a commit.
            StoreLocked: another transaction has locked its streams; the command was not executed.
            StoreConflict, StoreUnavailable: the last attempt failed. The command may have taken effect; a
                retry with the same request id returns its outcome.
            Exception: the command's own code or data failed; it changed nothing.
        """
        batches_ahead = self._queue.count() // MAX_BATCH_SIZE
        self._admission.check(request.arrived_at, request.deadline, batches_ahead, self._queue.oldest)
        queued = QueuedCommand(request, asyncio.get_running_loop().create_future())
        if self._quarantine.includes(request):
            self._quarantine.check()
            self._quarantine.put(queued)
        else:
            self._queue.put(queued)
        self._work_available.set()
        return await queued.result

    def count_queued(self) -> int:
        """Return the number of commands that wait for a batch."""
        return self._queue.count()

    async def run(self) -> None:
        """Execute queued commands until `close` is called and none is left."""
        batcher = AdaptiveBatcher(self._queue.count, self._batch_ready.set, MAX_BATCH_WAIT)
        while await self._wait_for_work():
            if self._quarantine.compute_pause() == 0.0 or not self._queue.count():
                await self._execute_group(self._quarantine.take_group())
                continue
            self._batch_ready.clear()
            self._forms_batch = True
            batcher.begin()
            await self._batch_ready.wait()
            if pause := self._admission.compute_batching_pause():
                with self._deadlines.watch(is_slow=True):
                    await asyncio.sleep(pause)
                self._deadlines.answer_before_commit()
            self._forms_batch = False
            self._batch = self._queue.take_batch()
            if self._batch:
                oldest = min(queued.request.arrived_at for queued in self._batch)
                self._on_batch(len(self._batch), perf_counter() - oldest)
            await self._execute_batch(self._batch)
        await self._fold_waits.close()

    async def _wait_for_work(self) -> bool:
        """Wait until a command is queued; return False once there will be no more."""
        while not self._queue.count():
            pause = self._quarantine.compute_pause()
            if pause == 0.0 or (self._closed and pause is not None):
                return True
            if self._closed and not self._fold_waits.count + self._lock_waits.count:
                return False
            self._admission.mark_idle()
            self._work_available.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._work_available.wait()
        return True

    def close(self) -> None:
        """Let `run` return once all commands have ended."""
        self._closed = True
        self._work_available.set()

    async def _execute_batch(self, batch: Sequence[QueuedCommand]) -> None:
        try:
            if batch:
                await self._commit_with_reruns(batch)
        except (StoreUnavailable, StoreLocked) as error:
            fail(batch, error)
        except Exception as error:  # for example for one command's data, which the store refuses
            await isolate(batch, error, self._commit_part, self._refuse)

    async def _commit_part(self, batch: Sequence[QueuedCommand]) -> None:
        began_at = perf_counter()
        try:
            await self._commit_with_reruns(batch)
        finally:
            self._quarantine.add_cost(perf_counter() - began_at)

    async def _execute_group(self, group: Sequence[QueuedCommand]) -> None:
        """Execute commands that the store will probably refuse, in one transaction."""
        began_at, self._batch = perf_counter(), group
        try:
            if group:
                await self._commit_part(group)
        except (StoreUnavailable, StoreLocked) as error:
            fail(group, error)
        except Exception as error:
            if len(group) > 1:
                self._quarantine.divide(group)
            else:
                self._refuse(group[0], error)
        self._quarantine.leave_time(perf_counter() - began_at)

    def _refuse(self, queued: QueuedCommand, error: Exception) -> None:
        """Answer a command that failed by itself."""
        delay = 0.0 if isinstance(error, StoreConflict) else self._quarantine.report(queued.request)
        asyncio.get_running_loop().call_later(delay, fail, [queued], error)

    def _put_back(self, queued: QueuedCommand) -> None:
        """Queue a command that was in a batch already."""
        if self._quarantine.includes(queued.request):
            self._quarantine.put(queued)
        else:
            self._queue.put_back(queued)

    async def _commit_with_reruns(self, batch: Sequence[QueuedCommand]) -> None:
        is_slow = self._admission.compute_batching_pause() > 0
        attempts, skip_locked = self._reruns.begin_batch(), self._lock_waits.includes_any(batch)
        while True:
            try:
                with self._admission.measure_commit(), self._deadlines.watch(is_slow=is_slow):
                    return await self._commit(batch, skip_locked)
            except StoreLocked:
                if skip_locked or self._has_locks:  # no single stream is locked, but a part of the store
                    raise
                skip_locked = True
            except (StoreConflict, StoreUnavailable) as error:
                # The rerun loads fresh states. If the lost commit took effect after all, the rerun finds the
                # recorded requests and returns their outcomes. A full store stays full.
                is_lost = isinstance(error, StoreUnavailable)
                if isinstance(error, StoreFull) or not attempts.may_rerun(lost=is_lost):
                    raise

    async def _commit(self, batch: Sequence[QueuedCommand], skip_locked: bool) -> None:
        requests, self._has_locks = [queued.request for queued in batch], False
        async with self._store.begin() as transaction:
            # A retry that runs on another server waits for the lock, and then mostly finds the request that
            # the lock's holder has recorded. If it does not, the keys make it a conflict, and it runs again.
            streams, lookup = await load_streams(
                transaction, self._aggregates, requests, merge_folded(batch), skip_locked=skip_locked
            )
            self._has_locks = True
            ages = RequestAges(self._keep_requests, lookup.kept_since)
            keys = self._sealing.begin()
            decisions = Batch(
                streams,
                lookup.requests,
                continue_from(lookup.now),
                ages,
                self._max_payload(),
                self._hashes,
                keys,
            )
            results = [_decide(decisions, request) for request in requests]
            decisions.look_for_state_keys()
            if keys is not None and keys.missing:
                await keys.obtain(transaction)
            if lookup.requests:
                _complete_recorded(batch, results, lookup)
            changes = decisions.collect_changes()
            if changes.requests:
                await transaction.commit(changes)
            else:
                self._admission.ignore_commit()
        if keys is not None:
            keys.keep()
        self._quarantine.note_committed(requests)
        if changes.events:
            self._on_commit()
        if decisions.times_set_aside:
            self._on_time_set_aside(decisions.times_set_aside)
        for queued, result in zip(batch, results, strict=True):
            if isinstance(result, NotLoaded):
                self._put_back(queued)
            elif isinstance(result, NotFolded):
                self._fold_waits.begin(queued, result)
            elif isinstance(result, StreamLocked):
                self._lock_waits.begin(queued, result)
            else:
                complete(queued, result, lookup.incarnation)

    def _answer_due(self, seconds: float) -> None:
        """Answer the commands that would wait too long for the commit under way.

        Args:
            seconds: a command whose deadline is nearer is answered in any case.
        """
        end = perf_counter() + seconds
        for queued in filter(is_waiting, self._batch):
            arrived_at, deadline = queued.request.arrived_at, queued.request.deadline
            if deadline is not None and deadline <= end:
                fail([queued], OutcomePending(self._admission.compute_pending_hint(arrived_at, deadline)))
        for queued in filter(is_waiting, self._queue.new):
            try:
                self._admission.recheck(queued.request.arrived_at, queued.request.deadline)
            except Overloaded as error:
                fail([queued], error)
        for queued in chain(self._queue.returned, self._queue.new):
            is_awaited(queued, end)


def _decide(decisions: Batch, request: Request) -> Outcome | Exception:
    try:
        return decisions.decide(request)
    except Exception as error:  # a bug in one command must not fail the others
        return error


def _complete_recorded(
    batch: Sequence[QueuedCommand], results: Sequence[Outcome | Exception], lookup: RequestLookup
) -> None:
    """Complete the repetitions of requests that an earlier commit has recorded."""
    for queued, result in zip(batch, results, strict=True):
        if queued.request.key in lookup.requests:
            complete(queued, result, lookup.incarnation)
