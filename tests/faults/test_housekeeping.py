"""Housekeeping is killed again and again beside traffic; commands go on, and nothing drifts."""

import asyncio
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, Process

import asyncpg
import pytest

from devstack.stack import Stack, variables
from tests.support.harness.changed_record import ALLOW_CHANGES, FORBID_CHANGES
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until

KILLS = 3
FILLERS = 60_000

AGE = """
UPDATE requests SET recorded_at = recorded_at - interval '40 days';
UPDATE saga_steps SET answered_at = answered_at - interval '40 days' WHERE answered_at IS NOT NULL;
"""
FILL = """
INSERT INTO requests (caller, request_id, type, hash, outcome, receipt, recorded_at)
SELECT 'filler', gen_random_uuid(), 'x', '', 'ACCEPTED', '{}', now() - interval '40 days'
FROM generate_series(1, $1)
"""
OLD = "SELECT count(*) FROM requests WHERE recorded_at < now() - interval '32 days'"
FREE_LEASE = "UPDATE housekeeping SET leader = NULL"  # a killed holder's lease lasts some seconds


async def start(stack: Stack) -> Process:
    environment = {**os.environ, **variables(stack.settings)}
    command = (sys.executable, "-m", "operations.cli", "housekeeping")
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=DEVNULL)


@pytest.mark.long
async def test_killed_rounds_beside_traffic(stack: Stack, traffic: Traffic) -> None:
    async with traffic.flowing():
        await traffic.more(60)
    await assert_consistent(stack, traffic.answers)
    later = Traffic(stack, secrets.randbits(32))
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        await connection.execute(f"{ALLOW_CHANGES}; {AGE} {FORBID_CHANGES}")
        await connection.execute(FILL, FILLERS)
        async with later.flowing():
            for _ in range(KILLS):
                count = await connection.fetchval(OLD)
                process = await start(stack)

                async def has_removed(before: int = count) -> bool:
                    return bool(await connection.fetchval(OLD) < before)

                await until(has_removed)
                process.kill()
                await process.wait()
                await connection.execute(FREE_LEASE)
                await later.more(10)
            assert await (await start(stack)).wait() == 0
        assert await connection.fetchval(OLD) == 0
    finally:
        await connection.close()
        await later.close()
    await assert_consistent(stack, later.answers)
