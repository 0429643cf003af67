"""Projectors with different contexts side by side: each group has its own projections and leases."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from devstack.processes import Process
from devstack.tcp_ports import free_port
from operations.processes import PROJECTOR
from tests.support.harness.keys import ring_file
from tests.support.harness.projection_run import INCARNATION_ID, EventPublisher
from tests.support.harness.waiting import until

GROUPS = {"ordering": ["ordering"], "banking,inventory": ["inventory", "banking"]}


@asynccontextmanager
async def run_group(redis_url: str, nats_url: str, contexts: str) -> AsyncIterator[Process]:
    settings = {
        "DIPTYCH_REDIS_URL": redis_url,
        "DIPTYCH_NATS_URL": nats_url,
        "DIPTYCH_CONTEXTS": contexts,
        "DIPTYCH_KEYS": str(ring_file()),
    }
    process = Process(PROJECTOR, contexts, f"127.0.0.1:{free_port()}", os.environ | settings, lambda _: None)
    await process.start()
    try:
        yield process
    finally:
        if process.child.running:
            await process.kill()


async def count_leases(redis: Redis, group: str) -> int:
    holders = await redis.mget([f"lease:{group}:{partition}" for partition in range(16)])
    assert len(set(filter(None, holders))) <= 1
    return sum(holder is not None for holder in holders)


async def list_ready(redis: Redis) -> set[str]:
    """Return the contexts with projections that are ready, `ready:<context>.<view>:<version>`."""
    keys = [key.decode() async for key in redis.scan_iter(match="ready:*", count=10_000)]
    return {key.split(":")[1].partition(".")[0] for key in keys}


async def read_builds(redis: Redis) -> dict[bytes, Any]:
    return {key: await redis.get(key) async for key in redis.scan_iter(match="build:*", count=10_000)}


async def have_advanced(redis: Redis, before: dict[str, int]) -> bool:
    """Return whether the oldest time of each of these projections is later than it was."""
    return all([await read_time(redis, key) > time for key, time in before.items()])


async def read_time(redis: Redis, key: str) -> int:
    times: Any = await redis.hvals(key)
    return min(map(int, times))


async def test_projectors_of_different_contexts_share_nothing(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    async with AsyncExitStack() as stack:
        ordering, others = [
            await stack.enter_async_context(run_group(redis_url, nats_url, ",".join(contexts)))
            for contexts in GROUPS.values()
        ]

        async def all_are_ready() -> bool:
            return await list_ready(redis) == {"ordering", "inventory", "banking"}

        await until(all_are_ready)
        assert [await count_leases(redis, group) for group in GROUPS] == [16, 16]
        assert await ordering.stop() == 0
        keys = [key.decode() async for key in redis.scan_iter(match="as_of:*", count=10_000)]
        remaining = [key for key in keys if not key.startswith("as_of:ordering.")]
        assert remaining
        before = {key: await read_time(redis, key) for key in remaining}
        await until(lambda: have_advanced(redis, before))
        assert await count_leases(redis, "banking,inventory") == 16

        assert await count_leases(redis, "ordering") == 0
        assert others.child.running
        # Another projector of the first group takes it over, and builds nothing again.
        builds = await read_builds(redis)
        await stack.enter_async_context(run_group(redis_url, nats_url, "ordering"))

        async def has_taken_over() -> bool:
            return await count_leases(redis, "ordering") == 16

        await until(has_taken_over)
        assert await read_builds(redis) == builds
        assert len(builds) > 3
    ready: Any = [await redis.get(key) async for key in redis.scan_iter(match="ready:*", count=10_000)]
    assert set(ready) == {INCARNATION_ID.encode()}
