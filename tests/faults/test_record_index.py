"""The index of records while its builders are killed: complete, with each record once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from secrets import randbits
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import OPERATIONS_SERVER
from operations.verify.verification import verify
from operations_server.records.database import Database
from tests.integration.operations_server.test_record_index import Index
from tests.support.harness.caller import Caller
from tests.support.harness.shop import order_of
from tests.support.harness.waiting import until

ORDERS, IN_FLIGHT, KILLS = 3_000, 16, 5


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Stack]:
    async with temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        query_servers=0,
        operations_servers=2,
    ) as stack:
        yield stack


async def place_orders(caller: Caller) -> None:
    for _ in range(ORDERS // IN_FLIGHT):
        await caller.execute(order_of(f"c-{uuid4().hex[:6]}"))


@pytest.mark.long
async def test_the_index_is_complete_although_its_builders_are_killed(stack: Stack) -> None:
    seed = randbits(32)
    print(f"seed {seed}")
    random = Random(seed)
    caller = Caller(stack, "ordering.place", "ordering.own-prices")
    placing = asyncio.gather(*(place_orders(caller) for _ in range(IN_FLIGHT)))
    for _ in range(KILLS):
        server = random.choice(stack.of(OPERATIONS_SERVER))
        await server.kill()
        await server.start()
        await asyncio.sleep(random.random() * 2)
    await placing
    await caller.close()
    url = stack.settings.database_url
    database: Any = await asyncpg.connect(url)

    async def is_built() -> bool:
        """Fewer than a segment needs may be left."""
        left = await database.fetchval(
            "SELECT (SELECT max(position) FROM events) - (SELECT coalesce(max(until), 0) FROM event_segments)"
            " + (SELECT count(*) FROM audit) - (SELECT coalesce(sum(requests), 0) FROM request_segments)"
        )
        return int(left) < 2_000

    await until(is_built, 90)
    await database.close()
    index = Index(url, Database(url), Database(url))
    assert await index.find_missing_terms() == []
    await index.compare(random, 10)
    await index.database.close()
    await index.builders.close()
    report = await verify(stack.settings, within=30)
    assert report.clean, report.to_text()
