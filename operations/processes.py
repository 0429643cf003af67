"""The system's own processes: how each is run, where it listens, and its health."""

from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from runtime.grpc.health import REASON_KEY


@dataclass(frozen=True)
class ProcessKind:
    """One of the system's processes.

    Args:
        name: for messages.
        module: for `python -m`.
        address: the setting with its address.
        serves_calls: whether it answers more than health checks there, and so by TLS.
    """

    name: str
    module: str
    address: str
    serves_calls: bool = True

    @property
    def variable(self) -> str:
        """The environment variable of its address."""
        return f"DIPTYCH_{self.address.upper()}"


COMMAND_SERVER = ProcessKind("command_server", "command_server", "command_address")
RELAY = ProcessKind("relay", "command_server.relay", "relay_address", serves_calls=False)
PROJECTOR = ProcessKind("projector", "projector", "projector_address", serves_calls=False)
QUERY_SERVER = ProcessKind("query_server", "query_server", "query_address")
PROCESS_MANAGER = ProcessKind("process_manager", "process_manager", "process_manager_address")
OPERATIONS_SERVER = ProcessKind("operations_server", "operations_server", "operations_address")
KINDS = (COMMAND_SERVER, QUERY_SERVER, OPERATIONS_SERVER, PROCESS_MANAGER, RELAY, PROJECTOR)
"""All processes, in the order in which they stop: first those that serve callers."""


async def check_health(
    address: str, seconds: float = 2.0, credentials: grpc.ChannelCredentials | None = None
) -> str:
    """Return a process's gRPC health: SERVING, NOT_SERVING, or the status of the failed call.

    Args:
        address: of the process.
        seconds: for the answer.
        credentials: of the call; None for one without TLS.
    """
    status, _ = await explain_health(address, seconds, credentials)
    return status


async def explain_health(
    address: str, seconds: float = 2.0, credentials: grpc.ChannelCredentials | None = None
) -> tuple[str, str]:
    """Return a process's gRPC health, and the reason that the process gives for NOT_SERVING, or nothing."""
    async with (
        grpc.aio.secure_channel(address, credentials)
        if credentials
        else grpc.aio.insecure_channel(address) as channel
    ):
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            call = stub.Check(HealthCheckRequest(), timeout=seconds)
            answer, metadata = await call, await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            return error.code().name, ""
    reasons = [str(value) for key, value in metadata or () if key == REASON_KEY]
    return HealthCheckResponse.ServingStatus.Name(answer.status), "; ".join(reasons)
