"""The stream of the log is a full disk, or a pipe that nobody reads: all processes work as if it were not."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic
from tests.support.ledger.installation import CONTEXT, installed

OUTAGE = 4.0
"""Seconds that a server is away: every process logs that, most of them several times."""
COMMANDS = 150
"""Commands whose lines fill a pipe of 64 KiB: all processes share it, and 50 commands are enough."""
PAUSE = 0.2
"""Seconds between two commands of a caller, so that the sagas keep up and can be verified at once."""
STOP = 20.0
"""Seconds that a process may take to stop; it gives calls in progress 10."""

pytestmark = pytest.mark.long


@contextmanager
def unread_pipe(path: Path) -> Iterator[Path]:
    """Make a named pipe that is open for reading, but never read."""
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    try:
        yield path
    finally:
        os.close(end)


@pytest.fixture(params=["full disk", "unread pipe"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "full disk":
        yield Path("/dev/full")
    else:
        with unread_pipe(tmp_path / "pipe") as path:
            yield path


@pytest.fixture
async def stack(tmp_path: Path, stream: Path) -> AsyncIterator[Stack]:
    with installed(CONTEXT):
        stack = temporary_stack(tmp_path, contexts=CONTEXT, process_managers=1, output=lambda _: stream)
        async with stack:
            yield stack


async def test_processes_outlive_their_servers_and_answer_though_no_line_can_be_written(stack: Stack) -> None:
    traffic = Traffic(stack, secrets.randbits(32))
    pids = [process.child.process.pid for process in stack.processes]
    async with traffic.flowing(PAUSE):
        await traffic.more(COMMANDS)
        for server in stack.servers.values():
            await server.kill()
        await asyncio.sleep(OUTAGE)  # the length of the outage, not a wait for anything
        for server in stack.servers.values():
            await server.start()
        for process in stack.processes:
            await process.wait_serving()
        await traffic.more(COMMANDS)
    assert [process.child.process.pid for process in stack.processes] == pids
    assert all(process.child.running for process in stack.processes)
    await assert_consistent(stack, traffic.answers)
    await traffic.close()
    for process in stack.processes:
        process.child.process.terminate()
        async with asyncio.timeout(STOP):
            assert await process.child.wait_ended() == 0
