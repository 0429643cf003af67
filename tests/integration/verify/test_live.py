"""A system that is worked on while it is verified gives no reason for alarm."""

import asyncio
import random
from pathlib import Path
from uuid import uuid4

from redis.asyncio import Redis

from devstack.stacks import throwaway
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.report import Report
from operations.verify.verification import verify
from tests.support.harness.verified_system import HISTORIES, ORDERS, Buyer, line

COMMANDS = 300
AT_ONCE = 20


async def busy(buyer: Buyer, dice: random.Random, enough: asyncio.Event) -> int:
    """Have orders of few customers live, until it is enough; return how many commands were sent."""
    sent = 0
    while not enough.is_set():
        order_id = uuid4().hex
        await buyer.place(order_id, f"c-{dice.randrange(3)}")
        for number in range(dice.randrange(4)):
            await buyer.send("AddOrderLine", order_id, shipping_group_id="home", line=line(f"x-{number}"))
            sent += 1
        if dice.random() < 0.7:
            await buyer.send("ConfirmOrder", order_id)
        if dice.random() < 0.3:
            await buyer.send("CancelOrder", order_id, reason="changed my mind")
        sent += 2
    return sent


async def test_nothing_is_found_while_commands_are_executed(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    stack = throwaway(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        relays=2,
        projectors=2,
        query_servers=0,
    )
    async with stack:
        buyer, enough = Buyer(stack), asyncio.Event()
        working = [
            asyncio.create_task(busy(buyer, random.Random(seed + number), enough))
            for number in range(AT_ONCE)
        ]
        reports: list[Report] = []
        while len(reports) < 3 or reports[-1].counted["requests"] < COMMANDS:
            reports.append(await verify(stack.settings, within=60))
            assert reports[-1].clean, reports[-1].page()
        enough.set()
        await asyncio.gather(*working)
        await buyer.close()
        last = await verify(stack.settings, within=60)
        assert (last.problems, last.notes) == ([], [NEVER_RAN])
        assert last.counted["events"] > reports[0].counted["events"]


async def test_a_projection_that_is_rebuilt_is_waited_for(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> None:
    stack = throwaway(
        tmp_path, database_url=database_url, nats_url=nats_url, redis_url=redis_url, query_servers=0
    )
    async with stack:
        buyer = Buyer(stack)
        await asyncio.gather(*(buyer.place(f"o-{number}", "ada") for number in range(200)))
        await buyer.close()
        async with Redis.from_url(redis_url) as redis:
            for view in (ORDERS, HISTORIES):
                await redis.delete(view.build, view.ready)
        report = await verify(stack.settings, within=60)
        assert report.clean, report.page()
