"""What a batch needs to know before it decides: its streams, locked, each with its newest state."""

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


async def load(
    transaction: Transaction, aggregates: Mapping[str, AggregateType], requests: Sequence[Request]
) -> dict[str, Stream]:
    """Lock and return every stream of every request by its name; new ones are at version 0.

    What a command's first streams say of further ones is read before all are locked together, in one order
    for all servers: locking in two steps, they would wait for each other. Batch.decide notices when the first
    streams have come to say something else meanwhile.
    """
    names = {name for request in requests for name in request.kind.decider.streams(request.command)}
    names |= await _related_streams(transaction, aggregates, requests)
    return await _streams(transaction, aggregates, names, await transaction.lock_streams(names))


async def _related_streams(
    transaction: Transaction, aggregates: Mapping[str, AggregateType], requests: Sequence[Request]
) -> set[str]:
    """Return the further streams that the requests are about, as far as can be told without a lock."""
    deciders = ((request.kind.decider, request.command) for request in requests)
    asking = [
        (decider, command)
        for decider, command in deciders
        if decider.related_streams is not no_related_streams
    ]
    if not asking:
        return set()
    names = {name for decider, command in asking for name in decider.streams(command)}
    found = await _streams(transaction, aggregates, names, await transaction.read_streams(names))
    states = {name: stream.state for name, stream in found.items()}
    return {
        name
        for decider, command in asking
        for name in decider.related_streams(
            command, {first: states[first] for first in decider.streams(command)}
        )
    }


async def _streams(
    transaction: Transaction,
    aggregates: Mapping[str, AggregateType],
    names: Collection[str],
    stored: Mapping[str, StoredStream],
) -> dict[str, Stream]:
    return {
        name: await _stream(transaction, name, aggregates[stream_type(name)], stored.get(name))
        for name in names
    }


async def _stream(
    transaction: Transaction, name: str, aggregate: AggregateType, stored: StoredStream | None
) -> Stream:
    if stored is None:
        return Stream(aggregate, 0, aggregate.initial, NEVER, is_new=True)
    state, version = aggregate.initial, 0
    if stored.state is not None and stored.fingerprint == aggregate.snapshots.fingerprint:
        with suppress(msgspec.MsgspecError):  # a cache that cannot be read is no cache
            state, version = aggregate.snapshots.decode(stored.state), stored.state_version
    if version < stored.version:
        state = aggregate.fold(state, await transaction.read_events(name, after=version))
    return Stream(aggregate, stored.version, state, stored.updated_at, is_new=False)
