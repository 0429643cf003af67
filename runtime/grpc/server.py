"""The one gRPC server: what every call passes, in order, and how the server listens and stops."""

import socket
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2_grpc

from runtime.grpc import authentication, errors, refused_calls, telemetry, validation
from runtime.grpc.authentication import Tokens
from runtime.grpc.health import Health, Probe
from runtime.grpc.keys import Keys
from runtime.grpc.method import Interceptor
from runtime.grpc.routes import Routes, Service
from runtime.process import logs
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

__all__ = ["Server", "Service", "build"]

log = logs.get_logger(__name__)


def interceptors(
    settings: Settings, record_refused_call: refused_calls.RecordRefusedCall
) -> list[Interceptor]:
    """Return what every call of every service passes, the outermost first.

    Health and reflection pass none of it: they are public, and hold no data.
    """
    tokens = Tokens(Keys(settings.jwks), settings.token_issuer, settings.token_audience)
    return [
        errors.answer,  # a refusal becomes a status with details
        telemetry.observe,  # a span, and the call's duration
        errors.contain,  # whatever nobody foresaw becomes INTERNAL
        refused_calls.record(record_refused_call),  # who was turned away, and why
        authentication.authenticate(tokens),  # a valid token with the method's scope, or nothing
        validation.validate,  # bytes become a message that obeys its proto
    ]


QUEUE = 1_000
"""How many calls may wait to be handed over before gRPC begins to turn some away; with twice as many, all."""


def options(settings: Settings, queue: int = QUEUE) -> list[tuple[str, int]]:
    """Return how gRPC is set up here."""
    return [
        # A single worker owns its port: with SO_REUSEPORT a second process would silently share it.
        ("grpc.so_reuseport", int(settings.reuse_port)),
        # The largest valid request, 100 order lines of four-byte characters, has 114 kB.
        ("grpc.max_receive_message_length", 256 * 1024),
        # Clients that vanished without a word are noticed within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping every 10 seconds to notice the same of us, also between calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Too much is turned away here (CANCELLED), before it costs any Python: docs/adr/0014.
        ("grpc.server.max_pending_requests", queue),
        ("grpc.server.max_pending_requests_hard_limit", 2 * queue),
        # Connections end gracefully now and then, so that a new replica gets its share of the clients.
        ("grpc.max_connection_age_ms", 600_000),
    ]


def build(
    settings: Settings,
    services: Sequence[Service] = (),
    *,
    address: str,
    probe: Probe,
    probe_address: str = "",
    queue: int = QUEUE,
    record_refused_call: refused_calls.RecordRefusedCall = refused_calls.log_refused_call,
) -> "Server":
    """Return a server that does not listen yet; call it within the event loop.

    Args:
        settings: the process's settings.
        services: what it serves; with none it answers health checks only.
        address: `host:port`; port 0 takes a free one.
        probe: whether the process can do its job; asked once a second.
        probe_address: where health checks are answered too, however many calls wait at `address`; or empty.
        queue: how many calls may wait to be handed over before gRPC begins to turn some away.
        record_attempt: keeps a record of unauthenticated, denied and invalid calls.

    Raises:
        StartError: a method has no access rule or no handler, or a file of keys cannot be read.
    """
    chain = interceptors(settings, record_refused_call) if services else []
    names = [service.descriptor.full_name for service in services]
    return Server(settings, Routes(services, chain), names, address, probe, probe_address, queue)


class Server:
    """A gRPC server, from listening to the end of the last call."""

    def __init__(
        self,
        settings: Settings,
        routes: Routes,
        names: Sequence[str],
        address: str,
        probe: Probe,
        probe_address: str,
        queue: int,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._names = names
        self._address = address
        self._probe = probe
        self._probe_address = probe_address
        self._queue = queue
        self._server: grpc.aio.Server | None = None
        self._probed: grpc.aio.Server | None = None
        self.health = Health(names)
        self.port = 0
        """Where it listens, once it does."""

    async def serve(self, lifecycle: Lifecycle) -> None:
        """Listen, and answer calls until the process stops and the last call under way has ended.

        Raises:
            StartError: the address is taken, or none of this machine's.
        """
        await self.start()
        try:
            await self.health.follow(self._probe, lifecycle.stopping)
        finally:
            await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the address is taken, or none of this machine's.
        """
        server = self._server = self._made()
        self.port = self._bind(server, self._address)
        if self._probe_address:
            probed = self._probed = grpc.aio.server(options=options(self._settings))
            health_pb2_grpc.add_HealthServicer_to_server(self.health, probed)
            self._bind(probed, self._probe_address)
            await probed.start()
        await server.start()
        log.info("Listening", address=self._address, port=self.port)

    def _bind(self, server: grpc.aio.Server, address: str) -> int:
        if not self._settings.reuse_port:
            check_free(address)
        try:
            return server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {address}: {error}") from error

    def _made(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=options(self._settings, self._queue))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        if self._settings.reflection:
            from grpc_reflection.v1alpha import reflection  # a tenth of a second that few processes need

            public = [*self._names, "grpc.health.v1.Health", reflection.SERVICE_NAME]
            reflection.enable_server_reflection(public, server)
        server.add_generic_rpc_handlers([self._routes])
        return server

    async def stop(self) -> None:
        """Be NOT_SERVING, take no more calls, and let those under way end within `stop_grace` seconds."""
        self.health.stop()
        # Let go of while the loop runs, as a server's destructor wants it.
        server, self._server = self._server, None
        probed, self._probed = self._probed, None
        if server is not None:
            await self._routes.close()
            await server.stop(self._settings.stop_grace)
        if probed is not None:
            await probed.stop(None)


def check_free(address: str) -> None:
    """Make sure that nobody listens at an address; gRPC itself reports that only between a lot of noise.

    Raises:
        StartError: somebody does, or the address is none of this machine's.
    """
    host, _, port = address.rpartition(":")
    try:
        if not 0 <= int(port) < 65536:
            raise ValueError(f"{port} is not a port")
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)
        family, kind, _, _, where = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"cannot listen on {address}: {why}") from error
