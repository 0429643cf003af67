"""The system's own processes, as children of a stack."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from operations.child import Child, Output
from operations.ports import is_free
from runtime.errors import StartError

PATIENCE = 60.0
"""Seconds that a process may take until it serves."""


@dataclass(frozen=True)
class Kind:
    """One of the system's processes: what runs it, and the setting that says where it listens."""

    name: str
    module: str
    address: str

    @property
    def variable(self) -> str:
        """The environment variable of its address."""
        return f"DIPTYCH_{self.address.upper()}"


COMMAND_SERVER = Kind("command_server", "command_server", "command_address")
RELAY = Kind("relay", "command_server.relay", "relay_address")
PROJECTOR = Kind("projector", "projector", "projector_address")
QUERY_SERVER = Kind("query_server", "query_server", "query_address")
PROCESS_MANAGER = Kind("process_manager", "process_manager", "process_manager_address")
KINDS = (COMMAND_SERVER, QUERY_SERVER, PROCESS_MANAGER, RELAY, PROJECTOR)
"""All of them, in the order in which they stop: first those that callers meet."""


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
        kind: Kind,
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
        while await health(self.address) != "SERVING":
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


async def health(address: str, seconds: float = 2.0) -> str:
    """Return a process's gRPC health: SERVING, NOT_SERVING, or why it could not be asked."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(HealthCheckRequest(), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return HealthCheckResponse.ServingStatus.Name(answer.status)
