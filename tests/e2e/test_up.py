"""`make up` at a terminal: it prints its addresses, keeps its data, restarts what fails and stops cleanly.

Four tests share one folder. Each begins with a running stack, and starts one only where the test before has
stopped it.
"""

import asyncio
import os
import pty
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from redis.asyncio import Redis

from devstack.tcp_ports import free_port, is_free
from operations.processes import KINDS
from tests.support.harness.waiting import until

# Replaces the fixed ports of the local stack's servers by free ones, so that a local stack may run meanwhile.
UP_PROGRAM = """
import sys
from devstack import up
from runtime.process.settings import Settings

postgres, nats, redis = sys.argv[1:]
urls = {
    "database_url": f"postgresql://diptych@127.0.0.1:{postgres}/diptych",
    "nats_url": f"nats://127.0.0.1:{nats}",
    "redis_url": f"redis://127.0.0.1:{redis}/0",
}
chosen = Settings()
named = chosen.model_dump(include=chosen.model_fields_set)
up.run(Settings.model_construct(chosen.model_fields_set, **(urls | named)))
"""
# Becomes the foreground process of the terminal and handles Ctrl-C, as make does.
MAKE_PROGRAM = """
import fcntl, subprocess, sys, termios
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""


class LocalStack:
    """`make up` at a terminal, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(3 + len(KINDS))]
        self.addresses = {
            kind.variable: f"127.0.0.1:{port}" for kind, port in zip(KINDS, self.ports[3:], strict=True)
        }
        self.runs: list[Process] = []
        self.keyboard, self._terminal = pty.openpty()

    @property
    def output(self) -> str:
        """The output of the latest run."""
        return (self.folder / f"output-{len(self.runs)}").read_text()

    @property
    def pid(self) -> int:
        """The process that holds the stack."""
        return int((self.folder / ".diptych/lock").read_text())

    async def run(self, variables: Mapping[str, str] | None = None, *, at_terminal: bool = True) -> Process:
        with (self.folder / f"output-{len(self.runs) + 1}").open("w") as output:
            self.runs.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", MAKE_PROGRAM, UP_PROGRAM, *map(str, self.ports[:3])),
                    cwd=self.folder,
                    env={**os.environ, **self.addresses, **(variables or {})},
                    stdin=self._terminal if at_terminal else DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
        return self.runs[-1]

    @property
    def running(self) -> bool:
        return bool(self.runs) and self.runs[-1].returncode is None

    async def start(self) -> None:
        run = await self.run()
        await until(lambda: "Diptych is up" in self.output or run.returncode is not None, 60)
        assert run.returncode is None, self.output

    async def press_ctrl_c(self) -> int:
        os.write(self.keyboard, b"\x03")
        return await self.runs[-1].wait()

    def all_ports_are_free(self) -> bool:
        return all(map(is_free, self.ports))

    async def close(self) -> None:
        for run in self.runs:
            if run.returncode is None:
                os.kill(self.pid, signal.SIGTERM)
                await run.wait()
        os.close(self.keyboard)
        os.close(self._terminal)


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
    (holder,) = re.findall(r"Lease acquired .*holder=\S+?:(\d+):", up.output)
    os.kill(int(holder), signal.SIGKILL)
    await until(lambda: up.output.count("Lease acquired") == 2)
    assert "relay ended with exit code -9; restarting" in up.output


async def test_ctrl_c_stops_cleanly_and_keeps_the_data(running_up: LocalStack) -> None:
    up = running_up
    for port in up.ports:
        assert f"127.0.0.1:{port}" in up.output
    redis_url = f"redis://127.0.0.1:{up.ports[2]}/0"
    async with Redis.from_url(redis_url) as redis:
        await redis.set("kept", "yes")
    assert await up.press_ctrl_c() == 0, up.output
    lines = up.output.splitlines()
    assert "Stopping" in lines  # followed by the last lines of the processes
    assert lines[-1] == "Stopped"
    assert up.all_ports_are_free()
    await up.start()
    async with Redis.from_url(redis_url) as redis:
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
