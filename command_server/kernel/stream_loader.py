"""Loading of a batch's streams, locked and with their current states.

How it works. A command names its first streams itself. Some commands affect related streams as well, which
only the state of the first ones identifies. `load_streams` reads those states without a lock, derives the
related streams, and then locks all streams of the batch in one statement. Two locking steps would let two
servers wait for each other: each would hold its first streams and wait for the related ones. One statement
takes all locks in the order of the stream names. The price is that a first stream may change between the
read and the lock. `Batch.decide` derives the related streams again from the locked states and raises
`NotLoaded` if one of them is missing. A state is the stored snapshot plus the events after it, or the fold
of all events if the snapshot comes from other code.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from command_server.kernel.batch import Request, Stream
from command_server.kernel.context import AggregateType
from command_server.kernel.decider import no_related_streams
from command_server.kernel.ports import StoredStream, Transaction
from contracts.streams import stream_type

NEVER = datetime.min.replace(tzinfo=UTC)
"""`updated_at` of a stream without events."""


async def load_streams(
    transaction: Transaction, aggregates: Mapping[str, AggregateType], requests: Sequence[Request]
) -> dict[str, Stream]:
    """Lock and return all streams of the requests by name. Streams that do not exist are at version 0.

    Args:
        transaction: holds the locks until it ends.
        aggregates: every aggregate by stream type.
        requests: the batch.
    """
    names = {name for request in requests for name in request.kind.decider.streams(request.command)}
    names |= await _find_related_streams(transaction, aggregates, requests)
    return await _fold_streams(transaction, aggregates, names, await transaction.lock_streams(names))


async def _find_related_streams(
    transaction: Transaction, aggregates: Mapping[str, AggregateType], requests: Sequence[Request]
) -> set[str]:
    deciders = ((request.kind.decider, request.command) for request in requests)
    dependent = [
        (decider, command)
        for decider, command in deciders
        if decider.related_streams is not no_related_streams
    ]
    if not dependent:
        return set()
    names = {name for decider, command in dependent for name in decider.streams(command)}
    streams = await _fold_streams(transaction, aggregates, names, await transaction.read_streams(names))
    states = {name: stream.state for name, stream in streams.items()}
    return {
        name
        for decider, command in dependent
        for name in decider.related_streams(
            command, {first: states[first] for first in decider.streams(command)}
        )
    }


async def _fold_streams(
    transaction: Transaction,
    aggregates: Mapping[str, AggregateType],
    names: Collection[str],
    rows: Mapping[str, StoredStream],
) -> dict[str, Stream]:
    return {
        name: await _fold_stream(transaction, name, aggregates[stream_type(name)], rows.get(name))
        for name in names
    }


async def _fold_stream(
    transaction: Transaction, name: str, aggregate: AggregateType, row: StoredStream | None
) -> Stream:
    if row is None:
        return Stream(aggregate, 0, aggregate.initial, NEVER, is_new=True)
    state, version = aggregate.initial, 0
    if row.state is not None and row.fingerprint == aggregate.snapshots.fingerprint:
        with suppress(msgspec.MsgspecError):  # without a readable snapshot, fold all events
            state, version = aggregate.snapshots.decode(row.state), row.state_version
    if version < row.version:
        state = aggregate.fold(state, await transaction.read_events(name, after=version))
    return Stream(aggregate, row.version, state, row.updated_at, is_new=False)
