"""The event store without gRPC: group commit, against one statement and one commit per command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import perf_counter, process_time
from typing import Any
from uuid import uuid4

import asyncpg

from bench import requests
from bench.comparison import Sample, Subject
from bench.environment import IN_FLIGHT, Environment
from bench.kernel_requests import build_request, place_order_type
from bench.process_cost import CpuMeter
from command_server.contexts import ordering
from command_server.kernel.batch import NEVER, Batch, LoadedStreams, Request, Stream
from command_server.kernel.context import AggregateType, aggregate_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.ports import Changes
from command_server.postgres import statements
from command_server.postgres.event_rows import encode_changes
from command_server.postgres.event_store import SESSION_SETTINGS, PostgresEventStore
from command_server.postgres.schema import SERVICE_ROLE

COMMANDS = 6_000
"""Commands per run of the complete bench."""
CONNECTIONS = 16
"""Connections for single commits; more of them make PostgreSQL slower."""


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield single commits and group commit, each with connections that stay open."""
    url = environment.stack.settings.database_url
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
    aggregate = aggregates["ordering.order"]
    commands = environment.plan.scale(COMMANDS)

    async def commit_in_group(request: Request) -> None:
        await commits.execute(request)

    async def commit_alone(changes: Changes) -> None:
        async with pool.acquire() as connection:
            await connection.execute(statements.WRITE, *encode_changes(changes))

    async def measure_group_commit() -> Sample:
        return await _measure(environment, commit_in_group, list(_generate_requests(commands)))

    async def measure_single_commits() -> Sample:
        changes = [_decide(aggregate, request) for request in _generate_requests(commands)]
        return await _measure(environment, commit_alone, changes)

    try:
        yield [
            Subject("a commit a command", measure_single_commits),
            Subject("the store alone", measure_group_commit),
        ]
    finally:
        commits.close()
        await writer
        await store.close()
        await pool.close()


def _generate_requests(count: int) -> Iterator[Request]:
    kind = place_order_type()
    return (build_request(kind, message) for message in requests.generate_orders(count, f"{uuid4()}-"))


def _decide(aggregate: AggregateType, request: Request) -> Changes:
    """Return the changes of one command on a stream of its own."""
    (name,) = request.kind.decider.streams(request.command)
    batch = Batch(
        LoadedStreams({name: Stream(aggregate, 0, aggregate.initial, NEVER, is_new=True)}),
        {},
        lambda: datetime.now(UTC),
    )
    batch.decide(request)
    return batch.collect_changes()


async def _measure(
    environment: Environment, execute: Callable[[Any], Awaitable[None]], items: Sequence[Any]
) -> Sample:
    """Execute all items with IN_FLIGHT concurrent workers; return the sample of the run."""
    postgres = environment.stack.servers["database_url"].child.process.pid
    meter, cpu, start = CpuMeter({"postgres": postgres}), process_time(), perf_counter()
    remaining = iter(items)

    async def work() -> None:
        for item in remaining:
            await execute(item)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    seconds = perf_counter() - start
    count = len(items)
    environment.expected_events += count
    own_cpu = (process_time() - cpu) * 1e6 / count
    return Sample(count / seconds, cpu={"store": own_cpu, **meter.measure(count)})
