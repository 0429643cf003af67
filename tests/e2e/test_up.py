"""`make up` at a terminal: it prints its addresses, keeps its data, restarts what fails and stops cleanly.

Four tests share one folder. Each begins with a running stack, and starts one only where the test before has
stopped it.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from runtime.redis.pool import open_client
from tests.support.harness.local_stack import LocalStack
from tests.support.harness.waiting import until


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[LocalStack]:
    up = LocalStack(tmp_path)
    yield up
    await up.close()


@pytest.fixture(scope="module")
async def shared_up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    up = LocalStack(tmp_path_factory.mktemp("up"))
    yield up
    await up.close()


@pytest.fixture
async def running_up(shared_up: LocalStack) -> LocalStack:
    if not shared_up.running:
        await shared_up.start()
    return shared_up


async def test_a_start_on_an_empty_folder_logs_no_warning(running_up: LocalStack) -> None:
    warnings = [line for line in running_up.output.splitlines() if re.search(r"\[(warning|error)", line)]
    assert warnings == []


async def test_a_killed_relay_is_restarted_and_a_second_stack_is_refused(running_up: LocalStack) -> None:
    up = running_up
    second = await up.run(at_terminal=False)
    assert await second.wait() == 1
    assert "a stack runs already in .diptych" in up.output
    up.runs.pop()
    leases = re.compile(r"^\W*relay .*Lease acquired .*holder=\S+?:(\d+):", re.MULTILINE)
    (holder,) = leases.findall(up.output)
    os.kill(int(holder), signal.SIGKILL)
    await until(lambda: len(leases.findall(up.output)) == 2)
    assert "relay ended with exit code -9; restarting" in up.output


async def test_ctrl_c_stops_cleanly_and_keeps_the_data(running_up: LocalStack) -> None:
    up = running_up
    for port in up.ports:
        assert f"127.0.0.1:{port}" in up.output
    password_file = up.folder / ".diptych" / "redis-users" / "administrator.password"
    redis_url = f"redis://administrator@127.0.0.1:{up.ports[2]}/0?password_file={password_file}"
    async with open_client(redis_url) as redis:
        await redis.set("kept", "yes")
    assert await up.press_ctrl_c() == 0, up.output
    lines = up.output.splitlines()
    assert "Stopping" in lines  # followed by the last lines of the processes
    assert lines[-1] == "Stopped"
    assert up.all_ports_are_free()
    await up.start()
    async with open_client(redis_url) as redis:
        assert await redis.get("kept") == b"yes"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_a_killed_stack_does_not_block_the_next(running_up: LocalStack) -> None:
    up = running_up
    os.kill(up.pid, signal.SIGKILL)
    await up.runs[-1].wait()
    await up.start()
    os.kill(up.pid, signal.SIGTERM)
    assert await up.runs[-1].wait() == 0
    assert up.all_ports_are_free()


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (
            0,
            "port {}, for PostgreSQL, is taken: free it, or set DIPTYCH_DATABASE_URL to a server of your own",
        ),
        (3, "port {}, for command_server, is taken: set DIPTYCH_COMMAND_ADDRESS to another"),
    ],
)
async def test_a_taken_port_is_reported_with_port_and_setting(up: LocalStack, at: int, line: str) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", up.ports[at])
    run = await up.run()
    assert await run.wait() == 1
    assert up.output.splitlines()[-1].endswith(line.format(up.ports[at]))
    taken.close()


@pytest.mark.long
async def test_the_users_own_servers_are_used_and_left_running(
    up: LocalStack, database_url: str, nats_url: str, redis_url: str
) -> None:
    urls = {
        "DIPTYCH_DATABASE_URL": database_url,
        "DIPTYCH_NATS_URL": nats_url,
        "DIPTYCH_REDIS_URL": redis_url,
    }
    run = await up.run(urls)
    await until(lambda: "Diptych is up" in up.output, 60)
    assert database_url in up.output
    assert not any((up.folder / ".diptych" / name).exists() for name in ("postgres", "nats", "redis"))
    os.kill(up.pid, signal.SIGTERM)
    assert await run.wait() == 0
    async with Redis.from_url(redis_url) as redis:
        assert await redis.ping()
