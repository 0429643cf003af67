"""Folding of long streams outside transactions, beside the commands of other streams.

How it works. A stream has many events to fold after a release that changes how its events are folded, or if
its snapshot cannot be read. A transaction that folded them would hold locks and the event loop for seconds.
One task here reads the events in chunks and folds them in slices of SLICE seconds, between which the event
loop runs. Commands of the same stream share one fold. A fold goes on if all of them have given up.

Every KEEP_INTERVAL events, and at the end, the state is kept in the store. So a crash repeats little, and a
second server begins where this one is. Kept snapshots are not those of the streams' rows: during a release,
servers of two versions may take turns on one stream, and neither may lose its state to the other.

Chunks go alternately to the shortest fold and to the oldest one, so that no short fold waits for a long one
and none starves. While one chunk is folded the next one is read; no more are in memory.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from time import perf_counter

import msgspec

from command_server.kernel.batch import NotFolded
from command_server.kernel.context import AggregateType
from command_server.kernel.ports import (
    EventStore,
    StoreConflict,
    StoredEvent,
    StoredSnapshot,
    StoreUnavailable,
)
from command_server.kernel.snapshot import FoldedState
from contracts.streams import stream_type

CHUNK_SIZE = 250
"""Maximum number of events that are read at once. To receive them is one step of the event loop as well."""
MIN_KEPT_EVENTS = 1_000
"""Folding fewer events again takes no longer than keeping the state."""
CHUNK_BYTES = 1_000_000
"""Size that chunks of large events should not exceed."""
SLICE = 0.00025
"""Seconds of folding at once. A command needs several iterations of the event loop; each may wait for one."""
MAX_YIELD = 0.005
"""Seconds that a fold yields to a busy event loop between two slices."""
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


@dataclass(slots=True)
class _Fold:
    """The fold of one stream."""

    stream: str
    aggregate: AggregateType
    state: FoldedState
    target: int
    """The version at which the stream was, or later."""
    result: "asyncio.Future[FoldedState]"
    started_at: float = field(default_factory=perf_counter)
    read_version: int = -1
    """The version up to which events have been read; -1: not begun."""
    read_to_end: bool = False
    kept_version: int = 0
    chunk_size: int = CHUNK_SIZE
    failures: int = 0
    first_version: int = 0

    @property
    def unread(self) -> int:
        """The number of events to read, at least."""
        return self.target - max(self.read_version, self.state.version)

    def note_read(self, events: Sequence[StoredEvent]) -> None:
        """Record that these events have been read."""
        self.failures = 0
        self.read_version += len(events)
        self.read_to_end = len(events) < self.chunk_size
        if events:
            mean_size = sum(len(event.data) for event in events) // len(events)
            self.chunk_size = max(1, min(CHUNK_SIZE, CHUNK_BYTES // max(1, mean_size)))


OnFolded = Callable[[str, int, float], None]
"""Called after a fold with the stream, the number of folded events, and the seconds that it took."""


class StreamFolder:
    """Folds long streams.

    Args:
        store: the store of events and kept snapshots.
        aggregates: every aggregate by stream type.
        on_folded: called after each fold.
        is_busy: returns whether commands are about to be executed, although the event loop looks idle.
    """

    def __init__(
        self,
        store: EventStore,
        aggregates: Mapping[str, AggregateType],
        on_folded: OnFolded = lambda *_: None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._aggregates = aggregates
        self._on_folded = on_folded
        self._is_busy = is_busy
        self._folds: dict[str, _Fold] = {}
        """The oldest first."""
        self._turns = count()
        self._task: asyncio.Task[None] | None = None

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
            fold = _Fold(unfolded.stream, aggregate, unfolded.base, unfolded.version, result)
            self._folds[unfolded.stream] = fold
        fold.target = max(fold.target, unfolded.version)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="stream folder")
        return fold.result

    async def close(self) -> None:
        """Stop folding, and keep the states that were reached."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        folds = list(self._folds.values())
        for fold in folds:
            self._end(fold, StoreUnavailable("the server stops"))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for fold in folds:
                    await self._keep(fold)
        except (TimeoutError, StoreUnavailable, StoreConflict):
            return  # the states of up to KEEP_INTERVAL events ago are kept

    async def _run(self) -> None:
        try:
            chunk = await self._read_next()
            while chunk is not None:
                following = asyncio.create_task(self._read_next())
                try:
                    await self._fold_chunk(*chunk)
                    chunk = await following or await self._read_next()
                finally:
                    following.cancel()
        except Exception as error:  # a bug here must not leave commands waiting
            for fold in list(self._folds.values()):
                self._end(fold, error)

    async def _read_next(self) -> tuple[_Fold, Sequence[StoredEvent]] | None:
        """Return a fold and its next events; None if all events of all folds have been read."""
        while (fold := self._choose()) is not None:
            try:
                if fold.read_version < 0:
                    await self._begin(fold)
                events = await self._store.read_chunk(fold.stream, fold.read_version, fold.chunk_size)
            except (StoreUnavailable, StoreConflict) as error:
                fold.failures += 1
                if fold.failures == ATTEMPTS:
                    self._end(fold, error)
                else:
                    await asyncio.sleep(RETRY_PAUSE)
            else:
                fold.note_read(events)
                return fold, events
        return None

    def _choose(self) -> _Fold | None:
        folds = [fold for fold in self._folds.values() if not fold.read_to_end]
        if not folds:
            return None
        return folds[0] if next(self._turns) % 2 else min(folds, key=attrgetter("unread"))

    async def _begin(self, fold: _Fold) -> None:
        codec = fold.aggregate.snapshots
        kept = await self._store.read_snapshot(fold.stream, codec.fingerprint)
        if kept is not None and kept.version > fold.state.version:
            with suppress(msgspec.MsgspecError):  # without a readable snapshot, fold all events
                fold.state = FoldedState(codec.decode(kept.state), kept.version)
        fold.read_version = fold.first_version = fold.kept_version = fold.state.version

    async def _fold_chunk(self, fold: _Fold, events: Sequence[StoredEvent]) -> None:
        if fold.result.done():  # it failed while this chunk was read
            return
        try:
            await self._fold_in_slices(fold, events)
        except Exception as error:  # an event of this stream cannot be folded
            self._end(fold, error)
        if fold.read_to_end and fold.state.version == fold.read_version:
            self._end(fold, None)
        if fold.result.done() or fold.state.version - fold.kept_version >= KEEP_INTERVAL:
            # A failure costs work later, not correctness.
            with suppress(StoreUnavailable, StoreConflict):
                await self._keep(fold)

    async def _fold_in_slices(self, fold: _Fold, events: Sequence[StoredEvent]) -> None:
        """Apply events, so that the fold's state is the one after the last that could be applied."""
        aggregate, state, version = fold.aggregate, fold.state.state, fold.state.version
        slice_end = perf_counter() + SLICE
        try:
            for event in events:
                state = aggregate.evolve(state, aggregate.decode(event))
                version += 1
                if perf_counter() > slice_end:
                    await self._yield()
                    slice_end = perf_counter() + SLICE
        finally:
            fold.state = FoldedState(state, version)

    async def _yield(self) -> None:
        """Let the event loop run until it has nothing else to do, but not for longer than MAX_YIELD."""
        start = end = perf_counter()
        while end - start < MAX_YIELD:
            begin = end
            await asyncio.sleep(0)
            end = perf_counter()
            if end - begin < IDLE_ITERATION and not self._is_busy():
                return

    async def _keep(self, fold: _Fold) -> None:
        if fold.state.version - fold.kept_version < MIN_KEPT_EVENTS:
            return
        codec, version = fold.aggregate.snapshots, fold.state.version
        snapshot = StoredSnapshot(version, codec.encode(fold.state.state))
        await self._store.keep_snapshot(fold.stream, codec.fingerprint, snapshot)
        fold.kept_version = version

    def _end(self, fold: _Fold, error: Exception | None) -> None:
        self._folds.pop(fold.stream, None)
        if fold.result.done():
            return
        if error is not None:
            fold.result.set_exception(error)
            return
        fold.result.set_result(fold.state)
        self._on_folded(
            fold.stream, fold.state.version - fold.first_version, perf_counter() - fold.started_at
        )


def _mark_retrieved(result: "asyncio.Future[FoldedState]") -> None:
    """Retrieve the exception, which nobody else may do if all commands have given up."""
    if not result.cancelled():
        result.exception()
