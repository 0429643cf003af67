"""The system's own processes, as children of a stack."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from time import monotonic

from devstack.child import Child, Output
from devstack.ports import is_free
from operations.processes import ProcessKind, check_health
from runtime.process.start_error import StartError

PATIENCE = 60.0
"""Seconds that a process may take until it serves."""


class Process:
    """One instance of one kind.

    Args:
        kind: what it is.
        name: what people call this instance.
        address: where it listens, `host:port`.
        environment: all its variables, but for the address.
        output: where its lines go.
        arguments: further arguments, for instance `--workers 2`.
        keep: file descriptors that it inherits.
    """

    def __init__(
        self,
        kind: ProcessKind,
        name: str,
        address: str,
        environment: Mapping[str, str],
        output: Output,
        arguments: Sequence[str] = (),
        keep: Sequence[int] = (),
    ) -> None:
        self.kind = kind
        self.name = name
        self.address = address
        self.child = Child(
            name,
            [sys.executable, "-m", kind.module, *arguments],
            output,
            environment={**environment, kind.variable: address},
            keep=keep,
        )

    def check_port(self) -> None:
        """Make sure that nobody listens at its address.

        Raises:
            StartError: somebody does.
        """
        port = self.address.rpartition(":")[2]  # where it is none, the process says so
        if port.isdecimal() and not is_free(int(port)):
            raise StartError(f"port {port}, for {self.name}, is taken: set {self.kind.variable} to another")

    async def start(self, ready: bool = True) -> None:
        """Start it, again if need be.

        Args:
            ready: whether to wait until it serves.

        Raises:
            StartError: it ended, or does not serve in time.
        """
        await self.child.start()
        if ready:
            await self.serving()

    async def serving(self, seconds: float = PATIENCE) -> None:
        """Wait until it serves.

        Raises:
            StartError: it ended, or does not in time.
        """
        deadline = monotonic() + seconds
        while await check_health(self.address) != "SERVING":
            if not self.child.running:
                code = await self.child.ended()
                raise StartError(f"{self.name} ended with exit code {code}{self.child.last_words()}")
            if monotonic() > deadline:
                raise StartError(f"{self.name} does not serve at {self.address} after {seconds:.0f} s")
            await asyncio.sleep(0.1)

    async def stop(self) -> int:
        """Stop it gracefully; return its exit code."""
        return await self.child.stop()

    async def kill(self) -> None:
        """Kill it with all its workers, as a crash would."""
        await self.child.kill()
