"""Lookups: gives commands the earlier events that their rules need, before the commands are queued.

How it works. A lookup reads what was recorded before the first event of the stream that its command is about.
That never changes, so it is read beside the transactions: no stream is locked for it, and commands without a
lookup pass at once. The index is built when it is needed (`index_builder.py`), so that no other command does
any work for it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

import msgspec

from command_server.kernel.batch import Request
from command_server.kernel.context import LOOKUP_FIELD, AggregateType, Context
from command_server.kernel.event_index import EarlierEvents, Lookup
from command_server.kernel.index_builder import IndexBuilder
from command_server.kernel.index_ports import IndexStore

MAX_LOOKUPS = 4
"""Lookups of a process that read at once; more wait."""


class EventLookups:
    """Reads the earlier events of commands.

    Args:
        store: the events and the entries of the indexes.
        contexts: their deciders declare the lookups.
        aggregates: every aggregate by stream type.
        on_unreadable: called with the stream, the version and the error of an event that cannot be read.
    """

    def __init__(
        self,
        store: IndexStore,
        contexts: Sequence[Context],
        aggregates: Mapping[str, AggregateType],
        on_unreadable: Callable[[str, int, Exception], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._builders: Mapping[str, IndexBuilder] = {
            lookup.index.name: IndexBuilder(
                store, lookup.index, aggregates[lookup.index.stream_type], on_unreadable
            )
            for context in contexts
            for decider in context.deciders
            if (lookup := decider.lookup)
        }
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    async def complete(self, request: Request) -> Request:
        """Return a request whose command has its earlier events; as it is if it needs none.

        Raises:
            StoreConflict, StoreUnavailable: the store did not answer; nothing was executed.
        """
        lookup = request.kind.decider.lookup
        if lookup is None:
            return request
        async with self._slots:
            earlier = await self._read(lookup, request)
        command = replace(request.command, **{LOOKUP_FIELD: earlier})
        # Its time in the queue, which admission limits, begins now.
        return msgspec.structs.replace(request, command=command, arrived_at=perf_counter())

    def close(self) -> None:
        """Stop building the indexes."""
        for builder in self._builders.values():
            builder.close()

    async def _read(self, lookup: Lookup, request: Request) -> EarlierEvents | None:
        index, (stream, version) = lookup.index.name, lookup.stream(request.command)
        origin = await self._store.find_origin(stream, index)
        if origin is None:
            return None
        builder = self._builders[index]
        if origin.built_to < origin.position:
            await builder.build_to(origin.position)
        state = await builder.fold(stream, version)
        if state is None:
            return None
        entries = await self._store.read_entries(index, lookup.keys(state), origin.position)
        return EarlierEvents(state, origin.recorded_at, entries)
