"""The event store without gRPC: group commit beside one statement and one commit for each command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import perf_counter, process_time
from typing import Any, cast
from uuid import uuid4

import asyncpg

from bench import requests
from bench.comparison import Contestant, Sample
from bench.environment import IN_FLIGHT, Scene, as_request, place_order
from bench.process_cost import Meter
from command_server.contexts import ordering
from command_server.kernel.batch import Batch, Request, Stream
from command_server.kernel.context import AggregateType, aggregate_types
from command_server.kernel.stream_loader import NEVER
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.ports import Changes
from command_server.postgres.event_store import SESSION_SETTINGS, PostgresEventStore, PostgresTransaction
from command_server.postgres.schema import SERVICE_ROLE

COMMANDS = 6_000
"""Commands of one turn."""
CONNECTIONS = 16
"""Of the statement for each command; with more of them PostgreSQL gets slower."""


@asynccontextmanager
async def contestants(scene: Scene) -> AsyncIterator[list[Contestant]]:
    """Yield both, each with connections that stay."""
    url = scene.stack.settings.database_url
    aggregates = aggregate_types([ordering.CONTEXT])
    store = PostgresEventStore(url)
    commits = GroupCommit(store, aggregates)
    writer = asyncio.create_task(commits.run())
    pool = await asyncpg.create_pool(
        url,
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        server_settings={**SESSION_SETTINGS, "role": SERVICE_ROLE},
    )
    (aggregate,) = aggregates.values()

    async def together(request: Request) -> None:
        await commits.execute(request)

    async def alone(changes: Changes) -> None:
        async with pool.acquire() as connection:
            await PostgresTransaction(cast("asyncpg.Connection[Any]", connection)).write(changes)

    async def ours() -> Sample:
        return await _timed(scene, together, list(_commands()))

    async def ceiling() -> Sample:
        return await _timed(scene, alone, [_decided(aggregate, request) for request in _commands()])

    try:
        yield [Contestant("a commit a command", ceiling), Contestant("the store alone", ours)]
    finally:
        commits.close()
        await writer
        await store.close()
        await pool.close()


def _commands() -> Iterator[Request]:
    kind = place_order()
    return (as_request(kind, message) for message in requests.orders(COMMANDS, f"{uuid4()}-"))


def _decided(aggregate: AggregateType, request: Request) -> Changes:
    """Return what a command on a stream of its own writes."""
    (name,) = request.kind.decider.streams(request.command)
    batch = Batch(
        {name: Stream(aggregate, 0, aggregate.initial, NEVER, is_new=True)}, {}, lambda: datetime.now(UTC)
    )
    batch.decide(request)
    return batch.collect_changes()


async def _timed(scene: Scene, execute: Callable[[Any], Awaitable[None]], work: Sequence[Any]) -> Sample:
    """Work something off, so much of it at once, and return how fast that was."""
    postgres = scene.stack.servers["database_url"].child.process.pid
    meter, cpu, start, rest = Meter({"postgres": postgres}), process_time(), perf_counter(), iter(work)

    async def worker() -> None:
        for each in rest:
            await execute(each)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    seconds = perf_counter() - start
    scene.recorded += COMMANDS
    own = (process_time() - cpu) * 1e6 / COMMANDS
    return Sample(COMMANDS / seconds, cpu={"store": own, **meter.microseconds(COMMANDS)})
