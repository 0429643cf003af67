"""One connection to NATS that is never given up: a process outlives its servers and goes on later."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from runtime.process import logs
from runtime.process.start_error import StartError

UNREACHABLE = (nats.errors.Error, OSError, TimeoutError)
"""What any call to NATS or JetStream may raise; most often it means: not now."""

_log = logs.get_logger(__name__)


Receive = Callable[[str, str, bytes, Mapping[str, str]], None]
"""Is told of a message: its subject, where an answer goes, its data and its headers."""


class _Client(Client):
    """The client with other ways of doing what took most of an event's time: headers, and queues to tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.receivers: dict[int, Receive] = {}
        """By subscription: who is told of its messages at once."""

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self.receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            receive(subject.decode(), reply.decode(), data, await self._process_headers(headers) or {})

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        lines = [f"{name}: {value}\r\n" for name, value in (headers or {}).items()]
        block = f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()
        if not headers or block.count(b"\n") != len(lines) + 2 or block.count(b"\r") != len(lines) + 2:
            # Without headers; or with line breaks in them, which the client knows how to make harmless.
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        sizes = f"{len(block)} {len(block) + payload_size}\r\n"
        await self._send_command(
            b"".join((f"HPUB {subject} {reply} {sizes}".encode(), block, payload, b"\r\n"))
        )
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        lines = raw.decode("utf-8", "replace").split("\r\n")
        try:
            return dict([line.split(": ", 1) for line in lines if line])
        except ValueError:  # a line without the space that the server and we put behind a name
            parted = [line.partition(":") for line in lines]
            return {name: value.strip() for name, colon, value in parted if colon}


class Connection:
    """A client of NATS with its JetStream context; made by `connect`."""

    def __init__(self, url: str, name: str) -> None:
        self._client = _Client()
        self.client: Client = self._client
        self.js: JetStreamContext = self.client.jetstream()
        self.sessions = 0
        """How often a connection was made; what was under way in an earlier one may be lost."""
        self._url = url
        self._name = name
        self._first = asyncio.Event()
        self._closed = asyncio.Event()
        self._closing = False
        self._keeper = asyncio.create_task(self._keep())

    @property
    def connected(self) -> bool:
        """Whether the server is there now, as far as the client knows."""
        return self.client.is_connected

    async def ready(self) -> None:
        """Wait until the first connection has been made, for ever if need be."""
        await self._first.wait()

    async def listen(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe, and have every message told at once, in the client's own task; end it with `forget`."""
        subscription = await self.client.subscribe(subject)
        self._client.receivers[subscription._id] = receive
        return subscription

    async def forget(self, subscription: Subscription) -> None:
        """End a subscription of `listen`."""
        self._client.receivers.pop(subscription._id, None)
        await subscription.unsubscribe()

    async def close(self) -> None:
        """Close the connection for good."""
        self._closing = True
        self._closed.set()  # connecting may swallow the cancellation (asyncio.wait_for in Python 3.11)
        self._keeper.cancel()
        await asyncio.wait({self._keeper}, timeout=5)
        await self.client.close()

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _keep(self) -> None:
        """Connect, and connect again where the client gave up, as it does on some of the server's errors."""
        while not self._closing:
            self._closed.clear()
            await self.client.connect(
                self._url,
                name=self._name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; sleep takes a float
                connect_timeout=2,
                ping_interval=5,  # a silent connection is given up after 15 seconds
                max_outstanding_pings=2,
                pending_size=0,  # publish nothing late that was meant for an earlier connection
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_connected,
                closed_cb=self._on_closed,
            )
            await self._on_connected()
            if self._closing:
                return
            await self._closed.wait()
            await asyncio.sleep(0.25)

    async def _on_connected(self) -> None:
        self.sessions += 1
        self._first.set()
        _log.info("Connected to NATS", url=self.client.connected_url and self.client.connected_url.netloc)

    async def _on_disconnected(self) -> None:
        if not self._keeper.cancelled():
            _log.warning("Disconnected from NATS", reason=str(self.client.last_error or ""))

    async def _on_error(self, error: Exception) -> None:
        _log.debug("NATS client", error=repr(error))

    async def _on_closed(self) -> None:
        self._closed.set()


async def connect(url: str, name: str) -> Connection:
    """Start connecting to NATS and return at once, whether or not it is there.

    Args:
        url: `nats://[user:password@]host:port`, or several with commas between.
        name: what the server's monitoring shows.

    Raises:
        StartError: the URL makes no sense.
    """
    connection = Connection(url, name)
    await asyncio.sleep(0)  # let the client read its arguments
    if connection._keeper.done():
        raise StartError("DIPTYCH_NATS_URL is no address of NATS") from connection._keeper.exception()
    return connection
