"""`diptych verify` compares a long stream in bounded memory."""

from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from bench.long_accounts import write_account
from operations.verify.checks.aggregates import Aggregates, Counts
from operations.verify.contexts import banking
from operations.verify.sources import PostgresReader, RedisReader, Sources, StreamContents
from runtime.jetstream import connect
from tests.support.harness.keys import get_ring

EVENTS = 40_000
MAX_GROWTH = 60_000_000
"""Bytes. In memory, the events took 190 MB."""
STREAM = "banking.account.long"


def read_status(name: str) -> int:
    """Return a size of this process in bytes."""
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name)]
    return int(line.split()[1]) * 1024


def reset_peak() -> int:
    """Let the peak of the resident memory begin at its present size; return that."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS:")


async def write_history(redis_url: str) -> None:
    """Write a history entry for each event, none of which can be read."""
    entry = b"\xff" * 120
    async with Redis.from_url(redis_url) as redis:
        for first in range(1, EVENTS, 10_000):
            fields = {str(version): entry for version in range(first, first + 10_000)}
            await redis.hset(banking.LEDGER.history("long"), mapping=fields)  # type: ignore[arg-type]


@pytest.mark.long
async def test_the_memory_does_not_grow_with_the_length_of_a_stream(
    database_url: str, nats_url: str, redis_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    await write_account(connection, "long", EVENTS, queued=True)
    await connection.close()
    await write_history(redis_url)
    async with await connect(nats_url, "test", get_ring) as nats:
        sources = Sources(
            PostgresReader(database_url, get_ring), StreamContents(nats), RedisReader(redis_url)
        )
        aggregates = {aggregate.stream_type: aggregate for aggregate in banking.AGGREGATES}
        counts = Counts()
        before = reset_peak()
        problems = await Aggregates(aggregates, sources, {}, standby=False).check({STREAM: EVENTS}, counts)
        growth = read_status("VmHWM:") - before
        await sources.postgres.close()
        await sources.redis.close()
    assert counts.compared["events"] == EVENTS
    assert any("entry 1 does not parse" in problem.text for problem in problems[STREAM])
    assert growth < MAX_GROWTH
