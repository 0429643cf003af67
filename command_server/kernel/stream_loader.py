"""Loading of a batch's streams, locked and with their current states.

How it works. A command names its first streams itself. Some commands affect related streams as well, which
only the state of the first ones identifies. `load_streams` reads those states without a lock, derives the
related streams, and then locks all streams of the batch in one statement. Two locking steps would let two
servers wait for each other: each would hold its first streams and wait for the related ones. One statement
takes all locks in the order of the stream names. The price is that a first stream may change between the
read and the lock. `Batch.decide` derives the related streams again from the locked states and raises
`NotLoaded` if one of them is missing.

A batch with many streams takes long, and its other commands with it. Therefore wide commands, which affect
more than NARROW streams, are left out once the batch has MAX_BATCH_STREAMS. `Batch.decide` raises `NotLoaded`
for them as well, and they are decided in one of the next batches. The first command is never left out.

A state is a snapshot plus the fold of the events after it. The snapshot is the one in the stream's row if it
comes from this code, or one that `StreamFolder` has made for the command. A batch folds few events, and reads
few bytes of them, because it holds locks; a stream with more is not loaded, and its commands fail with
`NotFolded`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from command_server.kernel.batch import NEVER, LoadedStreams, NotFolded, Request, Stream, StreamLocked
from command_server.kernel.context import AggregateType
from command_server.kernel.decider import no_related_streams
from command_server.kernel.fold import fill_read
from command_server.kernel.ports import RequestLookup, StoredStream, Transaction
from command_server.kernel.snapshot import FoldedState
from contracts.streams import stream_type

MAX_FOLDED_EVENTS = 1_000
"""Events that a transaction folds, of all its streams together: some ten milliseconds."""
MAX_BATCH_STREAMS = 1_000
"""Streams of a batch up to which wide commands are added: some hundred milliseconds."""
NARROW = 4
"""Streams up to which a command is part of the batch in any case."""

FoldedStates = Mapping[str, FoldedState]


async def load_streams(
    transaction: Transaction,
    aggregates: Mapping[str, AggregateType],
    requests: Sequence[Request],
    folded: FoldedStates,
    *,
    skip_locked: bool = False,
) -> tuple[LoadedStreams, RequestLookup]:
    """Lock all streams of the requests; return them by name, and the requests that are already recorded.

    Streams that do not exist are at version 0.

    Args:
        transaction: holds the locks until it ends.
        aggregates: every aggregate by stream type.
        requests: the batch.
        folded: states of earlier versions that were folded for these requests.
        skip_locked: fail commands with `StreamLocked` instead of waiting for the locks of others.

    Raises:
        StoreLocked: another transaction holds a lock for too long.
    """
    # In order of arrival, so that the oldest requests are folded first.
    names = dict[str, None]()
    _add_streams(names, [r.kind.decider.streams(r.command) for r in requests])
    dependent = [r for r in requests if r.kind.decider.related_streams is not no_related_streams]
    if dependent:
        loader = _Loader(aggregates, folded)
        _add_streams(names, await loader.find_related_streams(transaction, dependent))
        folded = {**folded, **loader.list_folded()}
    loader = _Loader(aggregates, folded)
    keys = {request.key for request in requests}
    rows, lookup = await transaction.lock_and_find(names, keys, skip_locked=skip_locked)
    if skip_locked and (missing := names.keys() - rows.keys()):
        # A stream that was left out is either new or locked by another transaction.
        for name in await transaction.read_streams(missing):
            del names[name]
            loader.loaded.failures[name] = StreamLocked(name)
    return await loader.load(transaction, names, rows), lookup


def _add_streams(names: dict[str, None], streams_of_requests: Sequence[Sequence[str]]) -> None:
    """Add the streams of each request, but for wide ones that are too many; the first in any case."""
    for number, streams in enumerate(streams_of_requests):
        if number and len(streams) > NARROW and len(names) + len(streams) > MAX_BATCH_STREAMS:
            continue
        names.update(dict.fromkeys(streams))


@dataclass(slots=True)
class _Loader:
    aggregates: Mapping[str, AggregateType]
    folded: FoldedStates
    loaded: LoadedStreams = field(default_factory=LoadedStreams)

    async def find_related_streams(
        self, transaction: Transaction, requests: Sequence[Request]
    ) -> Sequence[Sequence[str]]:
        """Return the streams of each request that the unlocked states of its first streams name."""
        first = dict.fromkeys(chain.from_iterable(r.kind.decider.streams(r.command) for r in requests))
        await self.load(transaction, first, await transaction.read_streams(first))
        streams, related = self.loaded.streams, list[Sequence[str]]()
        for request in requests:
            decider, command = request.kind.decider, request.command
            names = decider.streams(command)
            if all(name in streams for name in names):
                related.append(
                    decider.related_streams(command, {name: streams[name].state for name in names})
                )
        return related

    async def load(
        self, transaction: Transaction, names: Iterable[str], rows: Mapping[str, StoredStream]
    ) -> LoadedStreams:
        budget, behind = MAX_FOLDED_EVENTS, dict[str, FoldedState]()
        for name in names:
            aggregate, row = self.aggregates[stream_type(name)], rows.get(name)
            if row is None:
                self.loaded.streams[name] = Stream(aggregate, 0, aggregate.initial, NEVER, is_new=True)
                continue
            snapshot = _read_snapshot(aggregate, row)
            base = self._find_base(name, aggregate, snapshot)
            missing = row.version - base.version
            if missing > budget:
                self.loaded.failures[name] = NotFolded(name, base, row.version)
                continue
            self.loaded.streams[name] = _build_stream(aggregate, row, base, base is snapshot and not missing)
            if missing:
                budget -= missing
                behind[name] = base
        if behind:
            await self._fold(transaction, behind)
        return self.loaded

    def _find_base(self, name: str, aggregate: AggregateType, snapshot: FoldedState | None) -> FoldedState:
        """Return the latest of the states that this code has folded."""
        folded = self.folded.get(name) or FoldedState(aggregate.initial, 0)
        return folded if snapshot is None or snapshot.version < folded.version else snapshot

    async def _fold(self, transaction: Transaction, behind: FoldedStates) -> None:
        events = await transaction.read_events({name: base.version for name, base in behind.items()})
        is_full = fill_read(chain.from_iterable(events.values()))
        for name, base in behind.items():
            stream, missing = self.loaded.streams[name], events.get(name, ())
            if is_full and base.version + len(missing) < stream.version:
                del self.loaded.streams[name]
                self.loaded.failures[name] = NotFolded(name, base, stream.version)
                continue
            try:
                stream.state = stream.type.fold(base.state, missing)
            except Exception as error:  # an event of one stream must not fail the commands of others
                del self.loaded.streams[name]
                self.loaded.failures[name] = error
            else:
                stream.version = base.version + len(missing)

    def list_folded(self) -> FoldedStates:
        """Return the states that were read, so that the events up to them are not folded once more."""
        return {
            name: FoldedState(stream.state, stream.version)
            for name, stream in self.loaded.streams.items()
            if stream.changed
        }


def _read_snapshot(aggregate: AggregateType, row: StoredStream) -> FoldedState | None:
    """Return the snapshot in a stream's row, or None if this code cannot use it."""
    if row.state is None or row.fingerprint != aggregate.snapshots.fingerprint:
        return None
    if row.state_version > row.version:
        return None
    with suppress(msgspec.MsgspecError):
        return FoldedState(aggregate.snapshots.decode(row.state), row.state_version)
    return None


def _build_stream(aggregate: AggregateType, row: StoredStream, base: FoldedState, is_current: bool) -> Stream:
    """Return a stream.

    Args:
        aggregate: its type.
        row: its row.
        base: its state, to be completed if it is older than the row.
        is_current: whether the row has this state already.
    """
    stream = Stream(aggregate, row.version, base.state, row.updated_at, is_new=False)
    stream.digest = row.digest or b""
    # Even if the batch only rejects commands, the fold need not be repeated.
    stream.changed = not is_current
    stream.replaces_snapshot = (
        row.state is not None
        and row.fingerprint != aggregate.snapshots.fingerprint
        and row.state_version > MAX_FOLDED_EVENTS
    )
    return stream
