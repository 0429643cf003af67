"""The gRPC server of every process: its interceptors, its options, and how it starts and stops."""

import socket
from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health_pb2_grpc

from runtime.grpc import authentication, errors, telemetry, validation
from runtime.grpc.aio_server import Server as AioServer
from runtime.grpc.authentication import TokenVerifier
from runtime.grpc.call_places import CallPlaces
from runtime.grpc.health import Health, Probe
from runtime.grpc.jwks import KeySet
from runtime.grpc.method import Interceptor
from runtime.grpc.refused_calls import RecordRefusedCall, RefusedCalls, log_refused_call
from runtime.grpc.routes import Routes, Service
from runtime.process import logs
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.process.version import VERSION

__all__ = ["Server", "Service", "build"]

log = logs.get_logger(__name__)


def build_interceptors(settings: Settings, refused_calls: RefusedCalls) -> list[Interceptor]:
    """Return the interceptors of all services, the outermost first.

    Health and reflection have none: they are public and give access to no data.
    """
    tokens = TokenVerifier(KeySet(settings.jwks), settings.token_issuer, settings.token_audience)
    return [
        errors.send_error,  # turns an RpcError into a status with details
        telemetry.observe,  # records the call's duration and span
        errors.contain_exceptions,  # turns any other exception into INTERNAL
        refused_calls.intercept,  # records unauthenticated, denied and invalid calls
        authentication.authenticate(tokens),  # requires a valid token with the method's scope
        CallPlaces(settings.max_calls_per_caller).intercept,  # limits the calls of each caller
        validation.validate,  # decodes the request and checks it against its proto
    ]


MAX_RECEIVED_BYTES = 2 * validation.MAX_REQUEST_BYTES
"""Bytes of a request above which gRPC refuses it by itself, without details. Requests that are too large, but
smaller than this, get a reason from `validation`."""
MAX_PENDING = 1_000
"""Number of calls waiting to be handed over to Python from which gRPC sheds some new calls; from twice that
number it sheds all."""

INTAKE_FOR_LIMITS = 32
"""Calls of one method that are taken at a time if callers have places: what gRPC core holds back has none."""


def build_options(settings: Settings, max_pending: int = MAX_PENDING) -> list[tuple[str, int]]:
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


def build(
    settings: Settings,
    services: Sequence[Service] = (),
    *,
    address: str,
    probe: Probe,
    probe_address: str = "",
    max_pending: int = MAX_PENDING,
    record_refused_call: RecordRefusedCall = log_refused_call,
) -> "Server":
    """Return a server that does not listen yet. Must be called within the event loop.

    Args:
        settings: the process's settings.
        services: the services; without any the server answers health checks only.
        address: `host:port`; port 0 for any free port.
        probe: returns whether the process can do its work; run once a second.
        probe_address: second `host:port` for health checks, which answers even while `address` sheds load; or
            empty for none.
        max_pending: number of calls waiting to be handed over from which gRPC sheds some new calls.
        record_refused_call: records unauthenticated, denied and invalid calls.

    Raises:
        StartError: a method has no access rule or no handler, or the file of keys cannot be read.
    """
    refused_calls = RefusedCalls(record_refused_call)
    interceptors = build_interceptors(settings, refused_calls) if services else []
    names = [service.descriptor.full_name for service in services]
    routes = Routes(services, interceptors, refused_calls.add_unknown)
    return Server(settings, routes, names, address, probe, probe_address, max_pending, refused_calls)


class Server:
    """A gRPC server with health checks and a graceful stop."""

    def __init__(
        self,
        settings: Settings,
        routes: Routes,
        names: Sequence[str],
        address: str,
        probe: Probe,
        probe_address: str,
        max_pending: int,
        refused_calls: RefusedCalls,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._names = names
        self._address = address
        self._probe = probe
        self._probe_address = probe_address
        self._max_pending = max_pending
        self._refused_calls = refused_calls
        self._server: AioServer | None = None
        self._probe_server: AioServer | None = None
        self.health = Health(names)
        self.port = 0
        """The port that it listens at; 0 before `start`."""

    async def serve(self, lifecycle: Lifecycle) -> None:
        """Serve calls until the process stops and the calls in progress have ended.

        A server that ends by itself stops the process with an error.

        Raises:
            StartError: the address is in use, or does not belong to this machine.
        """
        await self.start()
        for part in filter(None, (self._server, self._probe_server)):
            lifecycle.spawn(part.wait_failed(), "gRPC server")
        try:
            await self.health.run_probe(self._probe, lifecycle.stopping)
        finally:
            await self.stop()

    async def start(self) -> None:
        """Start to listen.

        Raises:
            StartError: the address is in use, or does not belong to this machine.
        """
        server = self._server = self._create_server()
        self.port = self._bind(server, self._address)
        if self._probe_address:
            probe_server: Any = AioServer(build_options(self._settings))
            health_pb2_grpc.add_HealthServicer_to_server(self.health, probe_server)
            self._bind(probe_server, self._probe_address)
            self._probe_server = probe_server
            await probe_server.start()
        await server.start()
        log.info("Listening", address=self._address, port=self.port, version=VERSION)

    def _bind(self, server: AioServer, address: str) -> int:
        if not self._settings.reuse_port:
            check_address_free(address)
        try:
            return server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {address}: {error}") from error

    def _create_server(self) -> Any:
        intake = INTAKE_FOR_LIMITS if self._settings.max_calls_per_caller else 1
        server: Any = AioServer(build_options(self._settings, self._max_pending), intake)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        if self._settings.reflection:
            from grpc_reflection.v1alpha import reflection  # the import takes a tenth of a second

            public = [*self._names, "grpc.health.v1.Health", reflection.SERVICE_NAME]
            reflection.enable_server_reflection(public, server)
        server.add_methods(self._routes, self._routes.paths)
        return server

    async def stop(self) -> None:
        """Become NOT_SERVING, reject new calls, and give calls in progress `stop_grace` seconds to finish."""
        self.health.stop()
        # The references are dropped here because the destructor of a server needs a running event loop.
        server, self._server = self._server, None
        probe_server, self._probe_server = self._probe_server, None
        if server is not None:
            await self._routes.drain()
            await server.stop(self._settings.stop_grace)
            await self._refused_calls.close()
        if probe_server is not None:
            await probe_server.stop(None)


def check_address_free(address: str) -> None:
    """Check that an address can be bound. gRPC's own error is hidden between many other lines on stderr.

    Raises:
        StartError: the address is in use, or does not belong to this machine.
    """
    host, _, port = address.rpartition(":")
    try:
        if not 0 <= int(port) < 65536:
            raise ValueError(f"{port} is not a port")
        addresses = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)
        family, kind, _, _, socket_address = addresses[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(socket_address)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"cannot listen on {address}: {cause}") from error
