"""Two process managers under load: one goes, by each way of going, and the other one takes over."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic

import asyncpg
import pytest

from devstack.processes import Process
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROCESS_MANAGER
from tests.support.harness.invariants import verify_stack
from tests.support.harness.trade import Trade
from tests.support.harness.waiting import until

ORDERS = 30
"""Each time that a manager goes."""
LIMITS: Mapping[str, float] = {"kill": 1.5, "stop": 4.0, "freeze": 4.0}
"""Seconds within which the other manager has all partitions, with room for a slow machine."""
HOLDERS = "SELECT holder, count(*) AS partitions FROM saga_leases WHERE until > now() GROUP BY holder"
CONFIRMED = "SELECT count(*) FROM sagas WHERE saga = 'fulfilment.fulfilment' AND status = 'CONFIRMED'"
EXPIRIES = """
SELECT e.stream, e.recorded_at, count(*) OVER (PARTITION BY e.stream) AS number
FROM events e WHERE e.type IN ('diptych.banking.v1.HoldExpired', 'diptych.inventory.v1.ReservationExpired')
"""


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path_factory.mktemp("handover"), process_managers=2) as stack:
        yield stack


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[str]:
    yield stack.settings.database_url


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def place_orders(trade: Trade) -> None:
    skus = [await trade.create_product(10_000) for _ in range(3)]
    accounts = [await trade.open_account(100_000) for _ in range(3)]
    places = asyncio.Semaphore(10)

    async def place(number: int) -> None:
        async with places:
            await trade.place_order(skus[number % 3], accounts[number % 3])

    await asyncio.gather(*(place(number) for number in range(ORDERS)))


async def count_confirmed(url: str) -> int:
    ((confirmed,),) = await fetch(url, CONFIRMED)
    return int(confirmed)


async def until_confirmed(url: str, count: int) -> None:
    async def are_confirmed() -> bool:
        return await count_confirmed(url) >= count

    await until(are_confirmed, 60)


async def has_all(url: str, manager: Process) -> bool:
    """Return whether a manager holds all partitions."""
    rows = await fetch(url, HOLDERS)
    return len(rows) == 1 and f":{manager.child.process.pid}:" in rows[0]["holder"]


async def disturb(stack: Stack, way: str, first: Process, second: Process) -> None:
    if way in ("postgres", "nats"):
        server = stack.servers["database_url" if way == "postgres" else "nats_url"]
        await asyncio.gather(first.kill(), server.kill())
        await server.start()
        return
    began = monotonic()
    if way == "kill":
        await first.kill()
    elif way == "freeze":
        first.child.freeze()
    else:
        await first.stop()
    await until(lambda: has_all(stack.settings.database_url, second), 20)
    taken = monotonic() - began
    print(f"{way}: all partitions taken over after {taken:.2f} s")
    assert taken < LIMITS[way]


@pytest.mark.long
@pytest.mark.parametrize("way", ["kill", "freeze", "stop", "postgres", "nats"])
async def test_orders_go_on_when_a_manager_goes(stack: Stack, trade: Trade, database: str, way: str) -> None:
    first, second = stack.of(PROCESS_MANAGER)
    before = await count_confirmed(database)
    placing = asyncio.create_task(place_orders(trade))
    await until_confirmed(database, before + ORDERS // 6)
    try:
        await disturb(stack, way, first, second)
        await placing
        await until_confirmed(database, before + ORDERS)
    finally:  # the next test uses the same stack
        if way == "freeze":
            first.child.thaw()
        else:
            await first.start()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


@pytest.mark.long
async def test_deadlines_pass_through_an_outage_of_all_managers(
    stack: Stack, trade: Trade, database: str
) -> None:
    sku, account = await trade.create_product(1_000), await trade.open_account(1_000)
    begun = datetime.now(UTC)
    before = [await trade.claim_without_order(sku, account, timedelta(seconds=9)) for _ in range(5)]
    for manager in stack.of(PROCESS_MANAGER):
        await manager.kill()
    during = [await trade.claim_without_order(sku, account, timedelta(seconds=3)) for _ in range(5)]
    later = [await trade.claim_without_order(sku, account, timedelta(hours=1)) for _ in range(5)]
    await until(lambda: datetime.now(UTC) > begun + timedelta(seconds=13), 30)  # the deadlines pass
    assert not await fetch(database, EXPIRIES)
    for manager in stack.of(PROCESS_MANAGER):
        await manager.start()

    async def are_expired() -> bool:
        return len(await fetch(database, EXPIRIES)) >= 2 * len([*before, *during])

    await until(are_expired, 30)
    expiries = await fetch(database, EXPIRIES)
    assert {row["number"] for row in expiries} == {1}
    assert {row["stream"].rpartition(".")[2] for row in expiries} == {*before, *during}
    rows = await fetch(database, "SELECT id FROM saga_deadlines")
    assert sorted(row["id"] for row in rows) == sorted(later * 2)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
