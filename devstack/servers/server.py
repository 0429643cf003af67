"""The base of the three servers.

Each is a direct child with its data in a folder, so that it can be stopped, killed, frozen, and started again
on the same port with the same data. They listen on 127.0.0.1 alone and need no password.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from signal import SIGTERM, Signals
from time import monotonic
from typing import Self

from devstack.child import Child
from devstack.tcp_ports import free_port, is_free
from runtime.process.start_error import StartError

START_TIMEOUT = 60.0
"""Seconds that a server may take to start, recovery after a crash included."""


class Server(ABC):
    """A server on this machine.

    Args:
        folder: for its data and its log; created if missing.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
    """

    name: str
    stop_signal: Signals = SIGTERM

    def __init__(self, folder: Path, port: int | None = None, keep: Sequence[int] = ()) -> None:
        self.folder = folder.absolute()
        self.port = port or free_port()
        self._keep = keep
        self._child: Child | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Return whether it accepts requests now."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    async def _prepare(self) -> None:  # noqa: B027 - most servers need no preparation
        """Prepare the folder for a start."""

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "log"

    @property
    def child(self) -> Child:
        """Its process.

        Raises:
            RuntimeError: it was never started.
        """
        if self._child is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._child

    async def start(self) -> None:
        """Start it and wait until it is ready; a server that has ended may be started again.

        Raises:
            StartError: its port is taken, or it does not start.
        """
        if not is_free(self.port):  # another server there would be taken for this one
            raise StartError(f"port {self.port}, for {self.name}, is taken")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        await self._prepare()
        self._child = self._run(self._command(), self.stop_signal)
        await self._child.start()
        deadline = monotonic() + START_TIMEOUT
        while not await self.is_ready():
            if not self._child.running or monotonic() > deadline:
                await self._child.kill()
                raise StartError(f"{self.name} does not start on port {self.port}{self.child.last_line()}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop it gracefully; does nothing if it does not run."""
        if self._child is not None:
            await self._child.stop()

    async def kill(self) -> None:
        """Kill it, like a crash; acknowledged writes are still in its folder."""
        await self.child.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _run(self, command: Sequence[str | Path], stop_signal: Signals = SIGTERM) -> Child:
        return Child(self.name, command, self.log, stop_signal=stop_signal, keep=self._keep)


async def read_first_line(port: int, request: bytes = b"") -> bytes:
    """Return the first line that a server sends after a request; empty if it sends none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.readline(), 5)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()


def find_program(package: str, pattern: str, advice: str) -> Path:
    """Return the path of a program that a wheel contains.

    Args:
        package: of the wheel.
        pattern: a glob, relative to the package.
        advice: for the error message if the program is missing.

    Raises:
        StartError: the program is missing.
    """
    spec = find_spec(package)  # not imported: these packages act on import
    if spec is not None and spec.origin is not None:
        for program in Path(spec.origin).parent.glob(pattern):
            return program
    raise StartError(f"the package {package} has no program for this machine: {advice}")
