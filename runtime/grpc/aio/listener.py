"""The listener of grpc.aio, and the options of gRPC core."""

from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health_pb2_grpc

from runtime.grpc.addresses import check_address_free
from runtime.grpc.aio.credentials import create_credentials
from runtime.grpc.aio.handlers import Handlers
from runtime.grpc.aio.server import Server
from runtime.grpc.health import Health
from runtime.grpc.listener import MAX_RECEIVED_BYTES
from runtime.grpc.routes import Routes
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.tls.server_tls import ServerTls

INTAKE_FOR_LIMITS = 32
"""Calls of one method that are taken at a time if callers have places: what gRPC core holds back has none."""


def build_options(settings: Settings, max_pending: int) -> list[tuple[str, int]]:
    """Return the options of the gRPC server."""
    return [
        # A single process must own its port: with SO_REUSEPORT a second process would silently share it.
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
        # The server notices a client that vanished without closing its connection within 80 seconds.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping every 10 seconds, even between calls, to notice a server that vanished.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Load shedding: gRPC core ends excess calls (CANCELLED) before they cost any Python (docs/adr/0014).
        ("grpc.server.max_pending_requests", max_pending),
        ("grpc.server.max_pending_requests_hard_limit", 2 * max_pending),
        # Connections end gracefully every 10 minutes, so that clients also reconnect to new replicas.
        ("grpc.max_connection_age_ms", 600_000),
    ]


class AioListener:
    """See `runtime.grpc.listener.create_listener`."""

    def __init__(
        self,
        settings: Settings,
        address: str,
        routes: Routes,
        health: Health,
        names: Sequence[str],
        max_pending: int,
        tls: ServerTls | None = None,
    ) -> None:
        self._address = address
        self._credentials = create_credentials(tls) if tls else None
        self._owns_port = not settings.reuse_port
        self._routes = routes
        self._handlers = Handlers(routes)
        intake = INTAKE_FOR_LIMITS if settings.max_calls_per_caller else 1
        server: Any = Server(build_options(settings, max_pending), intake)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if settings.reflection and names:
            from grpc_reflection.v1alpha import reflection  # the import takes a tenth of a second

            reflection.enable_server_reflection(
                [*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server
            )
        self._server: Server = server

    async def start(self) -> int:
        if self._owns_port:
            check_address_free(self._address)
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise StartError(f"cannot listen on {self._address}: {error}") from error
        self._server.add_methods(self._handlers, self._routes.paths)
        await self._server.start()
        return port

    def _add_port(self) -> int:
        if self._credentials is None:
            return self._server.add_insecure_port(self._address)
        return self._server.add_secure_port(self._address, self._credentials)

    async def wait_failed(self) -> None:
        await self._server.wait_failed()

    async def stop(self, grace: float) -> None:
        await self._handlers.drain()
        await self._server.stop(grace)
        del self._server  # here, because the destructor of a server needs a running event loop
