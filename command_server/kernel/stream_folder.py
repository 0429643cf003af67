"""Folding of long streams outside transactions, beside the commands of other streams.

How it works. A stream has many events to fold after a release that changes how its events are folded, or if
its snapshot cannot be read. A transaction that folded them would hold locks and the event loop for seconds.
One task here reads the events in chunks and folds them in slices, between which the event loop runs. Commands
of the same stream share one fold. A fold goes on if all of them have given up.

Slices delay other commands nevertheless: each takes several iterations of the loop. So a helper, a process of
its own, folds what would take long, and keeps the state that it reaches in the store. The fold begins there
afterwards. It does the whole work if the helper has failed.

Every KEEP_INTERVAL events, and at the end, the state is kept in the store. So a crash repeats little, and a
second server begins where this one is. Kept snapshots are not those of the streams' rows: during a release,
servers of two versions may take turns on one stream, and neither may lose its state to the other.

Chunks go alternately to the shortest fold and to the oldest one, so that no short fold waits for a long one
and none starves. While one chunk is folded the next one is read; no more are in memory.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from operator import attrgetter
from time import perf_counter
from typing import Any

import msgspec

from command_server.kernel.batch import NotFolded
from command_server.kernel.context import AggregateType
from command_server.kernel.fold import BESIDE_COMMANDS, Fold, FoldHelper, FoldStore, Pace
from command_server.kernel.ports import (
    StoreConflict,
    StoredEvent,
    StoredSnapshot,
    StoreFailed,
    StoreUnavailable,
)
from command_server.kernel.snapshot import FoldedState
from contracts.streams import stream_type

MIN_KEPT_EVENTS = 1_000
"""Folding fewer events again takes no longer than keeping the state."""
IDLE_ITERATION = 0.00004
"""Seconds that an iteration of the event loop takes at most if it has nothing else to do."""
KEEP_INTERVAL = 100_000
"""Events after which the state is kept: a second of folding."""
ATTEMPTS = 3
"""Attempts to read a chunk, or to keep a state."""
RETRY_PAUSE = 0.2
"""Seconds between two attempts."""
CLOSE_TIMEOUT = 2.0
"""Seconds within which a stopping process keeps the states that it has reached."""

OnFolded = Callable[[str, int, float], None]
"""Called after a fold with the stream, the number of folded events, and the seconds that it took."""


class StreamFolder:
    """Folds long streams.

    Args:
        store: the store of events and kept snapshots.
        aggregates: every aggregate by stream type.
        on_folded: called after each fold.
        is_busy: returns whether commands are about to be executed, although the event loop looks idle.
        helper: folds what would take long.
        pace: how much is folded at once.
    """

    def __init__(
        self,
        store: FoldStore,
        aggregates: Mapping[str, AggregateType],
        on_folded: OnFolded = lambda *_: None,
        is_busy: Callable[[], bool] = lambda: False,
        helper: FoldHelper | None = None,
        pace: Pace = BESIDE_COMMANDS,
    ) -> None:
        self._store = store
        self._aggregates = aggregates
        self._on_folded = on_folded
        self._is_busy = is_busy
        self._helper = helper
        self._pace = pace
        self._folds: dict[str, Fold] = {}
        """The oldest first."""
        self._turns = count()
        self._task: asyncio.Task[None] | None = None
        self._elsewhere: set[asyncio.Task[None]] = set()
        """The folds of the helper."""

    @property
    def count(self) -> int:
        """The number of folds under way."""
        return len(self._folds)

    @property
    def age(self) -> float:
        """Seconds since the oldest fold under way began; 0 if there is none."""
        return max((perf_counter() - fold.started_at for fold in self._folds.values()), default=0.0)

    def fold(self, unfolded: NotFolded) -> "asyncio.Future[FoldedState]":
        """Return the stream's state at the version that it has at the end of the fold, or later.

        All callers share the future; wait for it without cancelling it.

        Raises, in the future:
            StoreUnavailable: the events could not be read.
            Exception: an event cannot be decoded or folded.
        """
        fold = self._folds.get(unfolded.stream)
        if fold is None:
            result: asyncio.Future[FoldedState] = asyncio.get_running_loop().create_future()
            result.add_done_callback(_mark_retrieved)
            aggregate = self._aggregates[stream_type(unfolded.stream)]
            fold = Fold(unfolded.stream, aggregate, unfolded.base, unfolded.version, result)
            self._folds[unfolded.stream] = fold
            self._choose_folder(fold)
        fold.target = max(fold.target, unfolded.version)
        return fold.result

    def _choose_folder(self, fold: Fold) -> None:
        waiting = sum(fold.unread for fold in self._folds.values() if not fold.is_elsewhere)
        if self._helper is not None and self._helper.takes(waiting):
            fold.is_elsewhere = True
            task = asyncio.create_task(self._fold_elsewhere(self._helper, fold))
            self._elsewhere.add(task)
            task.add_done_callback(self._elsewhere.discard)
        else:
            self._start()

    async def _fold_elsewhere(self, helper: FoldHelper, fold: Fold) -> None:
        fold.folded_elsewhere = await helper.fold(fold.stream, fold.target)
        fold.is_elsewhere = False
        self._start()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="stream folder")

    async def close(self) -> None:
        """Stop folding, and keep the states that were reached."""
        running = {*self._elsewhere, *([self._task] if self._task is not None else [])}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        if self._helper is not None:
            await self._helper.close()
        folds = list(self._folds.values())
        for fold in folds:
            self._end(fold, StoreUnavailable("the server stops"))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for fold in folds:
                    await self._keep(fold)
        except (TimeoutError, StoreUnavailable, StoreFailed, StoreConflict):
            return  # the states of up to KEEP_INTERVAL events ago are kept

    async def _run(self) -> None:
        try:
            chunk = await self._read_next()
            while chunk is not None:
                following = asyncio.create_task(self._read_next())
                following.add_done_callback(_mark_retrieved)  # nothing waits for it if the chunk fails
                try:
                    await self._fold_chunk(*chunk)
                    chunk = await following or await self._read_next()
                finally:
                    following.cancel()
        except Exception as error:  # a bug here must not leave commands waiting
            for fold in list(self._folds.values()):
                self._end(fold, error)

    async def _read_next(self) -> tuple[Fold, Sequence[StoredEvent]] | None:
        """Return a fold and its next events; None if all events of all folds have been read."""
        while (fold := self._choose()) is not None:
            try:
                if fold.read_version < 0:
                    await self._begin(fold)
                events = await self._store.read_chunk(fold.stream, fold.read_version, self._pace.chunk_size)
            except (StoreUnavailable, StoreFailed, StoreConflict) as error:
                fold.failures += 1
                if fold.failures == ATTEMPTS:
                    self._end(fold, error)
                else:
                    await asyncio.sleep(RETRY_PAUSE)
            else:
                fold.note_read(events, self._pace.chunk_size)
                return fold, events
        return None

    def _choose(self) -> Fold | None:
        folds = [fold for fold in self._folds.values() if not fold.read_to_end and not fold.is_elsewhere]
        if not folds:
            return None
        return folds[0] if next(self._turns) % 2 else min(folds, key=attrgetter("unread"))

    async def _begin(self, fold: Fold) -> None:
        codec = fold.aggregate.snapshots
        kept = await self._store.read_snapshot(fold.stream, codec.fingerprint)
        if kept is not None and kept.version > fold.state.version:
            with suppress(msgspec.MsgspecError):  # without a readable snapshot, fold all events
                fold.state = FoldedState(codec.decode(kept.state), kept.version)
        fold.read_version = fold.first_version = fold.kept_version = fold.state.version

    async def _fold_chunk(self, fold: Fold, events: Sequence[StoredEvent]) -> None:
        if fold.result.done():  # it failed while this chunk was read
            return
        failure: Exception | None = None
        try:
            await self._fold_in_slices(fold, events)
        except Exception as error:  # an event of this stream cannot be folded
            failure = error
        is_complete = fold.read_to_end and fold.state.version == fold.read_version
        if failure or is_complete or fold.state.version - fold.kept_version >= KEEP_INTERVAL:
            # A failure costs work later, not correctness.
            with suppress(StoreUnavailable, StoreConflict):
                await self._keep(fold)
        if failure or is_complete:
            self._end(fold, failure)

    async def _fold_in_slices(self, fold: Fold, events: Sequence[StoredEvent]) -> None:
        """Apply events, so that the fold's state is the one after the last that could be applied."""
        aggregate, state, version = fold.aggregate, fold.state.state, fold.state.version
        slice_end = perf_counter() + self._pace.slice
        try:
            for event in events:
                state = aggregate.apply(state, event)
                version += 1
                if perf_counter() > slice_end:
                    await self._yield()
                    slice_end = perf_counter() + self._pace.slice
        finally:
            fold.state = FoldedState(state, version)

    async def _yield(self) -> None:
        """Let the event loop run until it has nothing else to do, for `max_yield` seconds at most."""
        start = end = perf_counter()
        while True:
            begin = end
            await asyncio.sleep(0)
            end = perf_counter()
            is_idle = end - begin < IDLE_ITERATION and not self._is_busy()
            if is_idle or end - start >= self._pace.max_yield:
                return

    async def _keep(self, fold: Fold) -> None:
        if fold.state.version - fold.kept_version < MIN_KEPT_EVENTS:
            return
        codec, version = fold.aggregate.snapshots, fold.state.version
        subjects = fold.aggregate.list_subjects(fold.stream, fold.state.state)
        snapshot = StoredSnapshot(version, codec.encode(fold.state.state), subjects)
        await self._store.keep_snapshot(fold.stream, codec.fingerprint, snapshot)
        fold.kept_version = version

    def _end(self, fold: Fold, error: Exception | None) -> None:
        self._folds.pop(fold.stream, None)
        if fold.result.done():
            return
        if error is not None:
            fold.result.set_exception(error)
            return
        fold.result.set_result(fold.state)
        self._on_folded(fold.stream, fold.folded, perf_counter() - fold.started_at)


def _mark_retrieved(result: asyncio.Future[Any]) -> None:
    """Retrieve the exception, which nobody else may do: commands may have given up."""
    if not result.cancelled():
        result.exception()
