"""The verifier beside a running system: it finds a damaged view, and that it was repaired."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from devstack.stack import Stack, variables
from tests.support.harness.command_line import diptych
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import installed
from tests.support.ledger.projections import CHEQUE


@pytest.fixture(autouse=True)
def ledger() -> Iterator[None]:
    with installed(contexts=""):
        yield


@pytest.fixture
async def verifier(stack: Stack) -> AsyncIterator[Process]:
    environment = {**os.environ, **variables(stack.settings), "DIPTYCH_VERIFY_RATE": "100000"}
    command = (sys.executable, "-m", "operations.verify")
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)
    yield process
    process.terminate()
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def wait_for_round(verifier: Process) -> tuple[int, list[str]]:
    """Wait for the end of a round; return the number of findings, and what they are about."""
    assert verifier.stdout is not None
    subjects = []
    async with asyncio.timeout(60):
        async for line in verifier.stdout:
            entry: dict[str, Any] = json.loads(line)
            if entry["message"] == "Derived data differs":
                subjects.append(entry["subject"])
            if entry["message"] == "Verified":
                return entry["findings"], subjects
    raise AssertionError("the verifier has ended")


async def test_drift_is_found_repaired_and_gone(stack: Stack, clerk: Clerk, verifier: Process) -> None:
    receipt = await clerk.write(cheque_of("damaged"))
    cheque_id = receipt.aggregate_id
    before = await clerk.get(cheque_id, receipt.consistency_token)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.hset(CHEQUE.key(cheque_id), "data", CHEQUE.message().SerializeToString())
        await redis.hincrby(CHEQUE.key(cheque_id), "revision", 1)
    await wait_for_round(verifier)  # it may have begun before
    _, subjects = await wait_for_round(verifier)
    assert f"view ledger.cheque {cheque_id}" in subjects
    repair = ("--repair", "ledger.cheque", cheque_id)
    code, _, err = await diptych(stack, "verify", *repair)
    assert (code, "--reason" in err) == (2, True), err
    code, out, err = await diptych(stack, "verify", *repair, "--reason", "damaged by hand")
    assert (code, out) == (0, f"ledger.cheque {cheque_id} is folded again within seconds\n"), err
    async with asyncio.timeout(60):
        while (await wait_for_round(verifier))[0]:
            pass
    assert await clerk.get(cheque_id) == before
