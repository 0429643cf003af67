"""`make up` as people run it: it says where everything is, keeps its data, and leaves nothing behind."""

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

# The local stack's servers have fixed ports; those of a test that runs beside one have others.
UP = """
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
# Takes Ctrl-C for its own, as make does.
MAKE = """
import fcntl, subprocess, sys, termios
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""


class Up:
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
    def said(self) -> str:
        """What the latest run has said."""
        return (self.folder / f"said-{len(self.runs)}").read_text()

    @property
    def pid(self) -> int:
        """Of the process that holds the stack."""
        return int((self.folder / ".diptych/lock").read_text())

    async def run(self, variables: Mapping[str, str] | None = None, *, at_terminal: bool = True) -> Process:
        with (self.folder / f"said-{len(self.runs) + 1}").open("w") as said:
            self.runs.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", MAKE, UP, *map(str, self.ports[:3])),
                    cwd=self.folder,
                    env={**os.environ, **self.addresses, **(variables or {})},
                    stdin=self._terminal if at_terminal else DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            )
        return self.runs[-1]

    async def start(self) -> None:
        run = await self.run()
        await until(lambda: "Diptych is up" in self.said or run.returncode is not None, 60)
        assert run.returncode is None, self.said

    async def press_ctrl_c(self) -> int:
        os.write(self.keyboard, b"\x03")
        return await self.runs[-1].wait()

    def all_ports_are_free(self) -> bool:
        return all(map(is_free, self.ports))

    async def clear(self) -> None:
        for run in self.runs:
            if run.returncode is None:
                os.kill(self.pid, signal.SIGTERM)
                await run.wait()
        os.close(self.keyboard)
        os.close(self._terminal)


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    up = Up(tmp_path)
    yield up
    await up.clear()


async def test_ctrl_c_is_a_clean_stop_and_the_data_stays(up: Up) -> None:
    await up.start()
    for port in up.ports:
        assert f"127.0.0.1:{port}" in up.said
    redis_url = f"redis://127.0.0.1:{up.ports[2]}/0"
    async with Redis.from_url(redis_url) as redis:
        await redis.set("kept", "yes")
    assert await up.press_ctrl_c() == 0, up.said
    lines = up.said.splitlines()
    assert "Stopping" in lines  # and then whatever the processes say while they stop
    assert lines[-1] == "Stopped"
    assert up.all_ports_are_free()
    await up.start()
    async with Redis.from_url(redis_url) as redis:
        assert await redis.get("kept") == b"yes"


async def test_what_dies_is_started_again_and_a_second_stack_is_refused(up: Up) -> None:
    await up.start()
    second = await up.run(at_terminal=False)
    assert await second.wait() == 1
    assert "a stack runs already in .diptych" in up.said
    up.runs.pop()
    (holder,) = re.findall(r"Lease acquired .*holder=\S+?:(\d+):", up.said)
    os.kill(int(holder), signal.SIGKILL)
    await until(lambda: up.said.count("Lease acquired") == 2)
    assert "relay ended with exit code -9; restarting" in up.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_a_stack_that_is_killed_leaves_nothing_that_blocks_the_next(up: Up) -> None:
    await up.start()
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
async def test_a_taken_port_is_one_line_that_names_port_and_setting(up: Up, at: int, line: str) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", up.ports[at])
    run = await up.run()
    assert await run.wait() == 1
    assert up.said.splitlines()[-1].endswith(line.format(up.ports[at]))
    taken.close()


async def test_servers_of_the_users_own_are_used_and_left_alone(
    up: Up, database_url: str, nats_url: str, redis_url: str
) -> None:
    urls = {
        "DIPTYCH_DATABASE_URL": database_url,
        "DIPTYCH_NATS_URL": nats_url,
        "DIPTYCH_REDIS_URL": redis_url,
    }
    run = await up.run(urls)
    await until(lambda: "Diptych is up" in up.said, 60)
    assert database_url in up.said
    assert not any((up.folder / ".diptych" / name).exists() for name in ("postgres", "nats", "redis"))
    os.kill(up.pid, signal.SIGTERM)
    assert await run.wait() == 0
    async with Redis.from_url(redis_url) as redis:
        assert await redis.ping()
