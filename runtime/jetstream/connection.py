"""A connection to NATS that survives outages of any length.

How it works:

- `connect` returns at once. A task (`_keep_connected`) connects the client of nats-py, which then reconnects
  by itself without a limit. On some server errors the client closes itself; the task connects it again.
- `sessions` counts connections. Requests and replies in flight are lost with their connection, so a component
  that waits for some compares the count, as `StreamReader` does.
- `clients` counts connections that the task has made. The client subscribes again after each reconnect of its
  own; with one that closed itself the subscriptions end, so the relay compares this count.
- `max_payload` is the last known limit of the server. The client learns it when it connects; a reload of the
  server's configuration changes it without a word to clients, so `refresh_max_payload` reads a new greeting.
"""

import asyncio
from contextlib import suppress

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from contracts.envelope import DEFAULT_MAX_PAYLOAD
from contracts.key_ring import KeyRing
from contracts.signed_tokens import GetKeyRing
from runtime.grpc.health import NotReady
from runtime.jetstream.event_decoder import FeedVerifier
from runtime.jetstream.nats_client import NatsClient, Receive
from runtime.jetstream.nats_url import parse_nats_url
from runtime.jetstream.relayed_keys import RelayedKeys
from runtime.process import logs
from runtime.process.start_error import InvalidSetting
from runtime.telemetry.metrics import CONNECTIONS_LOST

UNREACHABLE = (nats.errors.Error, OSError, TimeoutError)
"""The errors of calls to NATS and JetStream. Their usual cause is that the server is unreachable."""

GREETING_TIMEOUT = 2.0
"""Seconds that a server may take to greet."""
DEFAULT_PORT = 4222
NO_KEYS = KeyRing(())

log = logs.get_logger(__name__)


class Connection:
    """A NATS client and its JetStream context; created by `connect`."""

    def __init__(self, url: str, name: str, get_ring: GetKeyRing) -> None:
        self._url = parse_nats_url(url)
        self._client = NatsClient(self._url.tls)
        self.client: Client = self._client
        self.js: JetStreamContext = self.client.jetstream()
        self.get_ring = get_ring
        self.feed = FeedVerifier(self.js, get_ring)
        """Verifies the messages of the stream."""
        self.subject_keys = RelayedKeys(lambda: self.client, get_ring, self.feed.verify_reply)
        """Open the events in them."""
        self.sessions = 0
        """Number of connections so far, including the current one."""
        self.clients = 0
        """Number of those that the client did not make by itself, each without the subscriptions before."""
        self.max_payload = DEFAULT_MAX_PAYLOAD
        """Bytes of a message with its headers that the server accepts, as last known."""
        self._name = name
        self._first_connected = asyncio.Event()
        self._client_closed = asyncio.Event()
        self._closing = False
        self._failures = logs.RepeatedErrors(log, "NATS unreachable")
        self._keeper = asyncio.create_task(self._keep_connected())

    @property
    def connected(self) -> bool:
        """Whether the client is connected. It may take 15 seconds to notice a silent server."""
        return self.client.is_connected

    def check_connected(self) -> None:
        """Check the connection, and that the stream could be verified when it was read last.

        Raises:
            NotReady: there is no connection, or a key is missing.
        """
        if not self.connected:
            raise NotReady("NATS is unreachable")
        self.feed.check_ready()

    async def wait_until_connected(self) -> None:
        """Wait for the first connection, without a time limit."""
        await self._first_connected.wait()

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe with a callback, which runs in the client's reading task and must return quickly."""
        subscription = await self.client.subscribe(subject)
        self._client.receivers[subscription._id] = receive
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription made by `subscribe`."""
        self._client.receivers.pop(subscription._id, None)
        await subscription.unsubscribe()

    def send_signal(self, subject: str) -> None:
        """Write a message without data, and do not wait; drop it if there is no connection.

        The client's own way takes two more turns of the event loop, behind all that runs in them.
        """
        client, transport = self._client, self._client._transport
        if not self.connected or transport is None:
            return
        waiting, client._pending, client._pending_data_size = client._pending, [], 0
        with suppress(OSError, RuntimeError):  # the transport is closed, which the client has not noticed yet
            transport.writelines([*waiting, f"PUB {subject} 0\r\n\r\n".encode()])

    async def refresh_max_payload(self) -> None:
        """Read the server's limit again; keep the last known one while the server is unreachable."""
        url = self.client.connected_url
        if not self.connected or url is None or not url.hostname:
            return
        with suppress(*UNREACHABLE, ValueError, KeyError, EOFError):
            async with asyncio.timeout(GREETING_TIMEOUT):
                self.max_payload = await _read_max_payload(url.hostname, url.port or DEFAULT_PORT)
                self._client._max_payload = self.max_payload

    async def close(self) -> None:
        """Close the connection and do not reconnect."""
        self._closing = True
        self._client_closed.set()  # connecting may swallow the cancellation (asyncio.wait_for in Python 3.11)
        self._keeper.cancel()
        await asyncio.wait({self._keeper}, timeout=5)
        await self.client.close()

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _keep_connected(self) -> None:
        while not self._closing:
            self._client_closed.clear()
            await self.client.connect(
                self._url.servers,
                name=self._name,
                nkeys_seed=self._url.nkey or None,
                inbox_prefix=self._url.inbox_prefix,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; sleep takes a float
                connect_timeout=2,
                ping_interval=5,  # with two outstanding pings a silent connection ends after 15 seconds
                max_outstanding_pings=2,
                pending_size=0,  # never publish in a later session messages meant for an earlier one
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_connected,
                closed_cb=self._on_closed,
            )
            self.clients += 1
            await self._on_connected()
            if self._closing:
                return
            await self._client_closed.wait()
            await asyncio.sleep(0.25)

    async def _on_connected(self) -> None:
        self.sessions += 1
        self.max_payload = self.client.max_payload
        self._first_connected.set()
        self._failures.reset()
        url = self.client.connected_url  # without its user and password
        log.info("Connected to NATS", server=f"{url.hostname}:{url.port}" if url else "")

    async def _on_disconnected(self) -> None:
        if not self._keeper.cancelled():
            CONNECTIONS_LOST.count("NATS")
            log.warning("Disconnected from NATS", error=str(self.client.last_error or ""))

    async def _on_error(self, error: Exception) -> None:
        if self.client.is_connected or self._closing:
            log.debug("NATS client error", error=repr(error))
        else:
            self._failures.report(error)

    async def _on_closed(self) -> None:
        self._client_closed.set()


async def _read_max_payload(host: str, port: int) -> int:
    """Return the limit that a server's greeting names: `INFO {"max_payload":1048576,…}`."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        greeting = await reader.readuntil(b"\r\n")
        return int(msgspec.json.decode(greeting.removeprefix(b"INFO "))["max_payload"])
    finally:
        writer.close()


async def connect(url: str, name: str, get_ring: GetKeyRing = lambda: NO_KEYS) -> Connection:
    """Start connecting to NATS and return at once, even if the server is unreachable.

    Args:
        url: the setting `nats_url`.
        name: the connection's name in the server's monitoring.
        get_ring: returns the current keys, with which the messages of the stream are verified.

    Raises:
        InvalidSetting: the URL is malformed, or a certificate cannot be read.
    """
    connection = Connection(url, name, get_ring)
    await asyncio.sleep(0)  # lets the client parse the URL
    if connection._keeper.done():
        raise InvalidSetting("DIPTYCH_NATS_URL: not a NATS URL") from connection._keeper.exception()
    return connection
