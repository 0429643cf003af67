"""What a batch needs to know before it decides: its streams, locked, each with its newest state."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from command_server.kernel.batch import Request, Stream
from command_server.kernel.context import AggregateType
from command_server.kernel.ports import StoredStream, Transaction
from runtime.streams import stream_type

NEVER = datetime.min.replace(tzinfo=UTC)


async def load(
    transaction: Transaction, aggregates: Mapping[str, AggregateType], requests: Sequence[Request]
) -> dict[str, Stream]:
    """Lock and return every stream of every request by its name; new ones are at version 0."""
    names = {name for request in requests for name in request.kind.decider.streams(request.command)}
    stored = await transaction.lock(names)
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
        state = aggregate.fold(state, await transaction.history(name, after=version))
    return Stream(aggregate, stored.version, state, stored.updated_at, is_new=False)
