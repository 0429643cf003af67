"""The listener of h2corn.

How it works. The socket is ours, and h2corn serves what it accepts. Its connections have no greatest age, so
every RENEWAL_INTERVAL a second h2corn takes over the socket, and the first one lets its connections go
gracefully: their clients reconnect, perhaps to new replicas. What is left of the first one after LONGEST_CALL
is closed, so there are never more than two. h2corn also ends by itself, and with all its calls, when a
connection cannot be accepted, for instance because the process has no descriptors left. Then another one
follows it. It must not come to this, so both together accept fewer connections than there are descriptors.

The certificates of an h2corn are those of its start, so changed ones are shown by another one, too. With TLS
there may therefore be three at a time.
"""

import asyncio
import resource
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import h2corn._lib
import h2corn._server
from h2corn import Config, RequestPolicy
from h2corn import Server as H2corn

from runtime.grpc.h2corn.application import CANCELLATION_DELAY, Application
from runtime.grpc.h2corn.public_methods import create_health_routes, create_reflection
from runtime.grpc.h2corn.sockets import open_socket, shut_down_connections
from runtime.grpc.h2corn.tls import describe_tls, present
from runtime.grpc.health import Health
from runtime.grpc.late_messages import MESSAGE_TIMEOUT
from runtime.grpc.listener import MAX_RECEIVED_BYTES
from runtime.grpc.routes import Routes
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait
from runtime.process.settings import Settings
from runtime.tls.server_tls import ServerTls

RENEWAL_INTERVAL = 600.0
"""Seconds after which all connections end gracefully."""
LONGEST_CALL = 0.9 * RENEWAL_INTERVAL
"""Seconds that calls of such a connection get to finish. Watches that are cut off resume."""
RETRY_INTERVAL = 0.5
"""Seconds after which h2corn is started again when it has ended by itself."""
STALL_TIMEOUT = MESSAGE_TIMEOUT
"""Seconds that a client may take to read on."""
MAX_METADATA_BYTES = 16 * 1024
MAX_CALLS = 12_288
"""Calls and watches at a time, which take some 10 kB each. h2corn answers further ones with HTTP 503, which
is UNAVAILABLE for clients of gRPC. `late_messages` ends most of a crowd without messages, but not at once."""
MAX_STREAMS, MAX_STREAMS_WITH_WATCHES = 100, 1_024
"""Calls and watches of a connection at a time. Clients keep further ones back, which costs the server nothing
under overload; but watches count, too, and stay."""
OWN_DESCRIPTORS = 128
"""Descriptors for all but the connections of clients."""
PROBE_CONNECTIONS = 32
"""Connections of an h2corn that answers health checks only, which are among OWN_DESCRIPTORS."""
THREADS = 1
"""Threads of h2corn. They read and write; calls run in the event loop of the process."""

log = logs.get_logger(__name__)

# h2corn prints a banner of three lines, and has no setting against it. It also tells systemd that the process
# is ready, and at each renewal that it stops.
h2corn._lib.emit_banner = lambda *_: None
_library: Any = h2corn._server
_library.notify_ready = _library.notify_stopping = lambda: False


def limit_connections(descriptors: int, servers: int = 2) -> int:
    """Return the connections that one of several h2corns may have in a process with so many descriptors."""
    return max((descriptors - OWN_DESCRIPTORS) // servers, PROBE_CONNECTIONS)


def build_config(descriptor: int, connections: int, streams: int, tls: ServerTls | None) -> Config:
    """Return the settings of h2corn for a socket that listens.

    Args:
        descriptor: of the socket.
        connections: that may be open at a time.
        streams: of each connection.
        tls: of the socket; None for plaintext.
    """
    return Config(
        **(describe_tls(tls) if tls else {}),
        bind=(f"fd://{descriptor}",),
        grpc=True,
        http1=False,
        lifespan="off",
        access_log=False,
        date_header=False,
        log_format="json",
        runtime_threads=THREADS,
        limit_connections=connections,
        max_concurrent_streams=streams,
        limit_concurrency=MAX_CALLS,
        timeout_keep_alive=0,
        timeout_graceful_shutdown=LONGEST_CALL,
        # A larger block of headers costs the connection, so the list's limit must come first.
        h2_max_header_list_size=MAX_METADATA_BYTES,
        limit_request_fields=0,  # the size counts
        h2_max_header_block_size=16 * MAX_METADATA_BYTES,
        h2_initial_stream_window_size=MAX_RECEIVED_BYTES,
        h2_initial_connection_window_size=8 * MAX_RECEIVED_BYTES,
        request_policies=(
            RequestPolicy(
                path="/*",
                max_request_body_size=0,  # `messages` counts
                timeout_request_body_idle=2 * MESSAGE_TIMEOUT,
                h2_timeout_response_stall=STALL_TIMEOUT,
            ),
        ),
    )


class H2cornListener:
    """See `runtime.grpc.listener.create_listener`."""

    def __init__(
        self,
        settings: Settings,
        address: str,
        routes: Routes,
        health: Health,
        names: Sequence[str],
        tls: ServerTls | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._reuse_port = settings.reuse_port
        self._routes = routes
        reflection = create_reflection(names) if settings.reflection and names else {}
        self._application: Any = Application(routes, create_health_routes(health), reflection)
        self._server: H2corn | None = None
        self._serving: set[asyncio.Task[None]] = set()
        """The h2corns that serve, or let connections go."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_serving = 2 if tls is None else 3
        self._connections = limit_connections(descriptors, self._max_serving) if names else PROBE_CONNECTIONS
        self._streams = MAX_STREAMS_WITH_WATCHES if routes.have_streams else MAX_STREAMS
        self._is_stopping = False
        self._renewing = asyncio.Lock()
        self._changed = asyncio.Event()
        """Set when the certificates have changed."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> int:
        self._socket = open_socket(self._address, self._reuse_port)
        await self._renew()
        late_messages = self._application.late_messages.run(lambda: not self._is_stopping)
        self._tasks = [asyncio.create_task(late_messages), asyncio.create_task(self._renew_at_times())]
        if self._tls is not None:
            self._tls.files.on_change.append(self._changed.set)
        port: int = self._socket.getsockname()[1]
        return port

    async def wait_failed(self) -> None:
        await asyncio.shield(self._ended)

    async def _renew_at_times(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RENEWAL_INTERVAL)
            self._changed.clear()
            try:
                await self._renew()
            except Exception as error:
                log.warning("Connections not renewed", error=repr(error))

    async def _renew(self) -> None:
        """Serve by a new h2corn, and let the connections of the old one go."""
        async with self._renewing:
            await self._wait_for_room()
            config = build_config(self._socket.fileno(), self._connections, self._streams, self._tls)
            new = H2corn(self._application, config)
            with present(self._tls):
                serving = asyncio.create_task(new.serve())
            self._serving.add(serving)
            serving.add_done_callback(lambda _: self._on_end(new, serving))
            try:
                await _wait_started(new, serving)
            except asyncio.CancelledError:
                new.shutdown()
                raise
            old, self._server = self._server, new
            if old is not None:
                old.shutdown()

    async def _wait_for_room(self) -> None:
        """Wait until one more h2corn may serve, after several changes of certificates."""
        while len(self._serving) >= self._max_serving:
            await asyncio.wait(self._serving, return_when=asyncio.FIRST_COMPLETED)

    def _on_end(self, server: H2corn, serving: "asyncio.Task[None]") -> None:
        self._serving.discard(serving)
        error = None if serving.cancelled() else serving.exception()
        if server is self._server and not self._is_stopping:
            log.error("h2corn ended; restarting", error=repr(error))
            self._tasks.append(asyncio.create_task(self._restart()))

    async def _restart(self) -> None:
        self._server = None
        await asyncio.sleep(RETRY_INTERVAL)
        try:
            await self._renew()
        except Exception as error:
            self._ended.set_exception(error)

    async def stop(self, grace: float) -> None:
        self._is_stopping = True
        await cancel_and_wait(*self._tasks)
        self._routes.reject_all()
        if self._server is not None:
            self._server.shutdown()
        await self._application.end_all(grace)
        await self._wait_closed()
        self._socket.close()
        if not self._ended.done():
            self._ended.set_result(None)

    async def _wait_closed(self) -> None:
        """Wait until h2corn has ended. Connections that clients keep busy without a call do not delay it."""
        if not self._serving:
            return
        _, serving = await asyncio.wait(self._serving, timeout=CANCELLATION_DELAY)
        if serving:
            shut_down_connections(self._socket.getsockname()[1])
            await asyncio.wait(serving)


async def _wait_started(server: H2corn, serving: "asyncio.Task[None]") -> None:
    started = asyncio.create_task(server.wait_started())
    try:
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
            raise RuntimeError("it has ended")
        await started
    finally:
        started.cancel()
