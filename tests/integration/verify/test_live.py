"""Verifying a system under load, or during a rebuild, finds nothing."""

import asyncio
import random
from pathlib import Path
from uuid import uuid4

from redis.asyncio import Redis

from devstack.stack_kinds import temporary_stack
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.report import Report
from operations.verify.verification import verify
from tests.support.harness.verified_system import HISTORIES, ORDERS, Buyer, line

COMMANDS = 300
SENDERS = 20


async def send_commands(buyer: Buyer, dice: random.Random, stop: asyncio.Event) -> None:
    """Place and change orders of three customers until `stop` is set."""
    while not stop.is_set():
        order_id = uuid4().hex
        await buyer.place(order_id, f"c-{dice.randrange(3)}")
        for number in range(dice.randrange(4)):
            await buyer.send("AddOrderLine", order_id, shipping_group_id="home", line=line(f"x-{number}"))
        if dice.random() < 0.7:
            await buyer.send("ConfirmOrder", order_id)
        if dice.random() < 0.3:
            await buyer.send("CancelOrder", order_id, reason="changed my mind")


async def test_nothing_is_found_under_load(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    stack = temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        relays=2,
        projectors=2,
        query_servers=0,
    )
    async with stack:
        buyer, stop = Buyer(stack), asyncio.Event()
        senders = [
            asyncio.create_task(send_commands(buyer, random.Random(seed + number), stop))
            for number in range(SENDERS)
        ]
        reports: list[Report] = []
        while len(reports) < 3 or reports[-1].counts["requests"] < COMMANDS:
            reports.append(await verify(stack.settings, within=60))
            assert reports[-1].clean, reports[-1].to_text()
        stop.set()
        await asyncio.gather(*senders)
        await buyer.close()
        last = await verify(stack.settings, within=60)
        assert (last.problems, last.notes) == ([], [NEVER_RAN])
        assert last.counts["events"] > reports[0].counts["events"]


async def test_verify_waits_for_a_rebuild(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str
) -> None:
    stack = temporary_stack(
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
        assert report.clean, report.to_text()
