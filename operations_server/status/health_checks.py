"""The health of the processes at the addresses of the settings, over kept channels.

A channel is kept, so that a frozen process costs one deadline and one pending check. It connects again
within a second, so that a process that is back shows at once.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from operations.processes import ProcessKind
from runtime.grpc.health import REASON_KEY
from runtime.process.settings import Settings
from runtime.tls.client_tls import ClientTls, open_channel

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
)
SERVING = "SERVING"


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """The result of one health check."""

    name: str
    address: str
    health: str
    """SERVING, NOT_SERVING, or the gRPC status of the failed check."""
    reason: str
    """The reason that the process gives for NOT_SERVING."""


class HealthChecks:
    """Checks the processes of some kinds.

    Args:
        settings: name their addresses. An address for probes alone goes before the one that calls use, where
            checks can be shed with the calls.
        kinds: the kinds.
        tls: of the checks at addresses that calls use; None for checks without TLS.
    """

    def __init__(
        self, settings: Settings, kinds: Collection[ProcessKind], tls: ClientTls | None = None
    ) -> None:
        self._tls = tls
        if tls is not None:
            tls.on_change.append(self._replace_channels)
        self._addresses = {
            kind: getattr(settings, kind.address.replace("_address", "_probe_address"), "")
            or str(getattr(settings, kind.address))
            for kind in kinds
        }
        self._call_addresses = {str(getattr(settings, kind.address)) for kind in kinds if kind.serves_calls}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._replaced: list[grpc.aio.Channel] = []

    async def check(self, seconds: float) -> Sequence[ProcessHealth]:
        """Return the health of each process, within this time."""
        while self._replaced:
            await self._replaced.pop().close()
        checks = (self._check(kind, address, seconds) for kind, address in self._addresses.items())
        return await asyncio.gather(*checks)

    async def close(self) -> None:
        for channel in (*self._channels.values(), *self._replaced):
            await channel.close()

    def _replace_channels(self) -> None:
        """Make the next checks by new channels, which have the present certificates."""
        self._replaced += self._channels.values()
        self._channels.clear()

    async def _check(self, kind: ProcessKind, address: str, seconds: float) -> ProcessHealth:
        if address not in self._channels:
            tls = self._tls if address in self._call_addresses else None
            self._channels[address] = open_channel(address, tls, OPTIONS)
        stub: Any = health_pb2_grpc.HealthStub(self._channels[address])
        call = stub.Check(HealthCheckRequest(), timeout=seconds)
        try:
            answer, metadata = await call, await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            return ProcessHealth(kind.name, address, error.code().name, "")
        reasons = [str(value) for key, value in metadata or () if key == REASON_KEY]
        status = HealthCheckResponse.ServingStatus.Name(answer.status)
        return ProcessHealth(kind.name, address, status, "; ".join(reasons))
