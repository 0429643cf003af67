"""The gRPC server of every process: its interceptors, its options, and how it starts and stops."""

from collections.abc import Sequence
from typing import Any

from runtime.grpc import authentication, errors, owners, telemetry, validation
from runtime.grpc.authentication import TokenVerifier
from runtime.grpc.call_places import CallPlaces
from runtime.grpc.certificate_callers import CertificateCallers, open_table
from runtime.grpc.health import Health, NotReady, Probe
from runtime.grpc.jwks import KeySet
from runtime.grpc.listener import Listener, create_listener
from runtime.grpc.method import Interceptor
from runtime.grpc.recorded_reads import RecordedReads, RecordRead
from runtime.grpc.refused_calls import RecordRefusedCall, RefusedCalls, log_refused_call
from runtime.grpc.routes import Routes, Service
from runtime.grpc.stream_lifetimes import StreamLifetimes
from runtime.grpc.turns import Turns
from runtime.process import logs
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from runtime.process.version import VERSION
from runtime.process.watched_files import WatchedFiles
from runtime.tls.expiry import CertificateExpiry
from runtime.tls.server_tls import ServerTls, check_plaintext, open_server_tls

__all__ = ["Server", "Service", "build"]

log = logs.get_logger(__name__)


_KEYS_TIMEOUT = 1.0
"""Seconds that a probe waits for the keys of callers' tokens while none are in use."""


def build_interceptors(
    settings: Settings,
    refused_calls: RefusedCalls,
    keys: KeySet,
    certificates: CertificateCallers | None,
    reads: RecordedReads,
) -> list[Interceptor]:
    """Return the interceptors of all services, the outermost first.

    Health and reflection have none: they are public and give access to no data.
    """
    turns = [Turns().intercept] if settings.grpc_server == "h2corn" else []
    tokens = TokenVerifier(keys, settings.token_issuer, settings.token_audience, settings.max_token_lifetime)
    return [
        errors.send_error,  # turns an RpcError into a status with details
        telemetry.measure,  # records the call's duration
        # identifies the caller by token or certificate, before the caller's trace is taken over
        authentication.identify(tokens, certificates),
        telemetry.trace,  # begins or continues the call's trace
        errors.contain_exceptions,  # turns any other exception into INTERNAL
        refused_calls.intercept,  # records unauthenticated, denied and invalid calls
        # requires a caller with the scopes of the method's rule
        authentication.admit(StreamLifetimes(keys, certificates)),
        *turns,  # lets callers take turns; grpc.aio hands calls over one by one, so there it would not help
        CallPlaces(settings.max_calls_per_caller).intercept,  # limits the calls of each caller
        validation.validate,  # decodes the request and checks it against its proto
        owners.check_owner,  # requires that the owner in the request is the caller, where the rule says so
        reads.intercept,  # records who looks at what, where the proto says so
    ]


MAX_PENDING = 1_000
"""Number of calls waiting to be handed over to Python from which gRPC sheds some new calls; from twice that
number it sheds all."""


def build(
    settings: Settings,
    services: Sequence[Service] = (),
    *,
    address: str,
    probe: Probe,
    probe_address: str = "",
    max_pending: int = MAX_PENDING,
    record_refused_call: RecordRefusedCall = log_refused_call,
    record_read: RecordRead | None = None,
) -> "Server":
    """Return a server that does not listen yet. Must be called within the event loop.

    Args:
        settings: the process's settings.
        services: the services; without any the server answers health checks only.
        address: `host:port`; port 0 for any free port.
        probe: returns whether the process can do its work; run once a second.
        probe_address: second `host:port` for health checks, which answers even while `address` sheds load; or
            empty for none. It is never served by TLS.
        max_pending: number of calls waiting to be handed over from which gRPC sheds some new calls.
        record_refused_call: records unauthenticated, denied and invalid calls.
        record_read: records calls of methods whose proto says so.

    Raises:
        StartError: a method has no access rule or no handler, its calls cannot be recorded, the files of
            keys or certificates cannot be read, or calls would be served to other machines without TLS.
    """
    refused_calls = RefusedCalls(record_refused_call)
    interceptors: list[Interceptor] = []
    tls = certificates = None
    if services:
        if (tls := open_server_tls(settings)) is None:
            check_plaintext(address, settings.insecure)
        keys = open_keys(settings)
        certificates = open_table(settings)
        interceptors = build_interceptors(
            settings, refused_calls, keys, certificates, RecordedReads(record_read)
        )
        probe = _require_keys(keys, probe)
    names = [service.descriptor.full_name for service in services]
    routes = Routes(services, interceptors, refused_calls.add_unknown)
    server = Server(settings, routes, names, address, probe, probe_address, max_pending, refused_calls, tls)
    if certificates is not None:
        server.watched.append(certificates.files)
    return server


def open_keys(settings: Settings) -> KeySet:
    """Return the keys that verify callers' tokens.

    Raises:
        InvalidSetting: they cannot be read, or not from there.
    """
    return KeySet(settings.jwks, settings.jwks_max_age, allow_http=settings.jwks_allow_http)


def _require_keys(keys: KeySet, probe: Probe) -> Probe:
    """Return a probe that also keeps the keys of callers' tokens up to date, and needs some."""

    async def probe_with_keys() -> bool:
        if not await keys.wait_loaded(_KEYS_TIMEOUT):
            raise NotReady("DIPTYCH_JWKS cannot be read: no token can be verified")
        return await probe()

    return probe_with_keys


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
        tls: ServerTls | None,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._names = names
        self._address = address
        self._probe = probe
        self._probe_address = probe_address
        self._max_pending = max_pending
        self._refused_calls = refused_calls
        self._tls = tls
        self.watched: list[WatchedFiles[Any]] = [tls.files] if tls else []
        """Files that are read again while it serves."""
        self._listeners: list[Listener] = []
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
        for listener in self._listeners:
            lifecycle.spawn(listener.wait_failed(), "gRPC server")
        for files in self.watched:
            lifecycle.spawn(files.run(), "changes of files")
        if self._tls is not None:
            lifecycle.spawn(CertificateExpiry(self._tls.get_own).run(), "certificate expiry")
        try:
            await self.health.run_probe(self._probe, lifecycle.stopping)
        finally:
            await self.stop()

    async def start(self) -> None:
        """Start to listen.

        Raises:
            StartError: the address is in use, or does not belong to this machine.
        """
        if self._probe_address:
            public = Routes((), (), self._refused_calls.add_unknown)
            await self._listen(self._probe_address, public, (), None)
        self.port = await self._listen(self._address, self._routes, self._names, self._tls)
        fields = {"server": self._settings.grpc_server, "tls": self._tls is not None, "version": VERSION}
        log.info("Listening", address=self._address, port=self.port, **fields)

    async def _listen(self, address: str, routes: Routes, names: Sequence[str], tls: ServerTls | None) -> int:
        listener = create_listener(
            self._settings, address, routes, self.health, names, self._max_pending, tls
        )
        port = await listener.start()
        self._listeners.append(listener)
        return port

    async def stop(self) -> None:
        """Become NOT_SERVING, reject new calls, and give calls in progress `stop_grace` seconds to finish."""
        self.health.stop()
        while self._listeners:  # the probe address is the last
            await self._listeners.pop().stop(self._settings.stop_grace)
        await self._refused_calls.close()
