"""What the three servers have in common.

Each is a direct child with its data in a folder, so that it can be stopped, killed, frozen, and started again
on the same port with the same data. They listen on 127.0.0.1 alone and ask for no password.
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
from devstack.ports import free_port, is_free
from runtime.process.start_error import StartError

PATIENCE = 60.0
"""Seconds that a server may take to start; recovery after a crash is part of it."""


class Server(ABC):
    """A server of this machine.

    Args:
        folder: keeps its data and its log; made where it is missing.
        port: where it listens; a free one where it is None.
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
        """Where clients find it."""

    @abstractmethod
    async def answers(self) -> bool:
        """Return whether it does its job now."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    async def _prepare(self) -> None:  # noqa: B027 - most have nothing to do here
        """Make the folder ready for a start."""

    @property
    def log(self) -> Path:
        """The file that it writes its log to."""
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
        """Start it, again if need be, and wait until it answers.

        Raises:
            StartError: its port is taken, or it does not start.
        """
        if not is_free(self.port):  # whoever answers there would pass for this server
            raise StartError(f"port {self.port}, for {self.name}, is taken")
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._prepare()
        self._child = self._run(self._command(), self.stop_signal)
        await self._child.start()
        deadline = monotonic() + PATIENCE
        while not await self.answers():
            if not self._child.running or monotonic() > deadline:
                await self._child.kill()
                raise StartError(f"{self.name} does not start on port {self.port}{self.child.last_words()}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop it gracefully; does nothing where it does not run."""
        if self._child is not None:
            await self._child.stop()

    async def kill(self) -> None:
        """Kill it, as a crash would; what it has acknowledged is still in its folder."""
        await self.child.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _run(self, command: Sequence[str | Path], stop_signal: Signals = SIGTERM) -> Child:
        return Child(self.name, command, self.log, stop_signal=stop_signal, keep=self._keep)


async def first_line(port: int, said: bytes = b"") -> bytes:
    """Return the first line that a server answers to what is said, or nothing."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(said)
        return await asyncio.wait_for(reader.readline(), 5)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()


def in_wheel(package: str, pattern: str, instead: str) -> Path:
    """Return a program that came as a package.

    Raises:
        StartError: it did not; `instead` says what to do about that.
    """
    spec = find_spec(package)  # not imported: these packages do things when they are
    if spec is not None and spec.origin is not None:
        for program in Path(spec.origin).parent.glob(pattern):
            return program
    raise StartError(f"the package {package} has no program for this machine: {instead}")
