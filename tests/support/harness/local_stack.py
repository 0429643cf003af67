"""`make up` and `make observe` at a terminal, in a folder and on ports of their own."""

import os
import pty
import signal
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path

from devstack.tcp_ports import free_port, is_free
from operations.processes import KINDS
from tests.support.harness.waiting import until

# Replaces the fixed ports of the local stack's servers by free ones, so that a local stack may run meanwhile.
UP_PROGRAM = """
import sys
from devstack import up
from runtime.process.settings import Settings

postgres, nats, redis, kind = sys.argv[1:]
urls = {
    "database_url": f"postgresql://diptych@127.0.0.1:{postgres}/diptych",
    "nats_url": f"nats://127.0.0.1:{nats}",
    "redis_url": f"redis://127.0.0.1:{redis}/0",
}
chosen = Settings()
named = chosen.model_dump(include=chosen.model_fields_set)
settings = Settings.model_construct(chosen.model_fields_set, **(urls | named))
up.run(settings, observed=kind == "observed", tls=kind == "tls")
"""
# Becomes the foreground process of the terminal and handles Ctrl-C, as make does.
MAKE_PROGRAM = """
import fcntl, subprocess, sys, termios
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""


class LocalStack:
    """`make up` at a terminal, in a folder of its own.

    Args:
        folder: the folder.
        observed: whether it is `make observe`.
        tls: whether it is `make up TLS=1`.
    """

    def __init__(self, folder: Path, *, observed: bool = False, tls: bool = False) -> None:
        self.folder = folder
        self._kind = "observed" if observed else "tls" if tls else "plain"
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
                await create_subprocess_exec(
                    *(sys.executable, "-c", MAKE_PROGRAM, UP_PROGRAM, *map(str, self.ports[:3])),
                    self._kind,
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

    async def start(self, variables: Mapping[str, str] | None = None) -> None:
        run = await self.run(variables)
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
