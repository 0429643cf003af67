"""The system's own processes, as children of a stack."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import ClassVar

from devstack.child import Child, Output
from devstack.tcp_ports import is_free
from operations.processes import ProcessKind, check_health
from runtime.process.start_error import StartError
from runtime.tls.channel_credentials import read_credentials

START_TIMEOUT = 60.0
"""Seconds that a process may take until it serves."""
METRICS_VARIABLE = "DIPTYCH_METRICS_ADDRESS"


class Process:
    """One instance of one kind.

    Args:
        kind: which process.
        name: of this instance, for messages.
        address: its listening address, `host:port`.
        environment: all its variables except the address.
        output: receives its lines.
        arguments: further arguments, for instance `--workers 2`.
        keep: file descriptors that it inherits.
        metrics_address: where it serves its metrics, `host:port`; empty for nowhere.
    """

    child_type: ClassVar[type[Child]] = Child
    """How it is started; tests choose a faster way."""

    def __init__(
        self,
        kind: ProcessKind,
        name: str,
        address: str,
        environment: Mapping[str, str],
        output: Output,
        arguments: Sequence[str] = (),
        keep: Sequence[int] = (),
        metrics_address: str = "",
    ) -> None:
        self.kind = kind
        self.name = name
        self.address = address
        self.metrics_address = metrics_address
        self._environment = environment
        metrics = {METRICS_VARIABLE: metrics_address} if metrics_address else {}
        self.child = self.child_type(
            name,
            [sys.executable, "-m", kind.module, *arguments],
            output,
            environment={**environment, kind.variable: address, **metrics},
            keep=keep,
        )

    def check_port(self) -> None:
        """Check that its port is free.

        Raises:
            StartError: it is not.
        """
        port = self.address.rpartition(":")[2]  # the process itself reports an address without a port
        if port.isdecimal() and not is_free(int(port)):
            raise StartError(f"port {port}, for {self.name}, is taken: set {self.kind.variable} to another")

    async def start(self, ready: bool = True) -> None:
        """Start it; a process that has ended may be started again.

        Args:
            ready: whether to wait until it serves.

        Raises:
            StartError: it ended, or does not serve in time.
        """
        await self.child.start()
        if ready:
            await self.wait_serving()

    async def wait_serving(self, seconds: float = START_TIMEOUT) -> None:
        """Wait until its health is SERVING.

        Raises:
            StartError: it ended, or does not serve in time.
        """
        deadline = monotonic() + seconds
        while await self.check_health() != "SERVING":
            if not self.child.running:
                code = await self.child.wait_ended()
                raise StartError(f"{self.name} ended with exit code {code}{self.child.last_line()}")
            if monotonic() > deadline:
                raise StartError(f"{self.name} does not serve at {self.address} after {seconds:.0f} s")
            await asyncio.sleep(0.1)

    async def check_health(self) -> str:
        """Return its health: SERVING, NOT_SERVING, or the status of the failed call."""
        credentials = read_credentials(self._environment) if self.kind.serves_calls else None
        return await check_health(self.address, credentials=credentials)

    async def stop(self) -> int:
        """Stop it gracefully; return its exit code."""
        return await self.child.stop()

    async def kill(self) -> None:
        """Kill it with all its workers, like a crash."""
        await self.child.kill()
