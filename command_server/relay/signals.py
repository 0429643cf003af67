"""The core NATS messages to the relay: notifications of commits, and requests of readers of the stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import nats.errors

from contracts import streams
from contracts.key_ring import Purpose
from contracts.signed_tokens import TokenSigner
from runtime.jetstream import UNREACHABLE, Connection, Receive


class Signals:
    """Subscriptions of the leading relay. A signal may get lost; none is needed for correctness."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._signer = TokenSigner(Purpose.FEED, connection.get_ring)

    @property
    def client_number(self) -> int:
        """The number of the connection's client, with which the subscriptions end."""
        return self._connection.clients

    def subscribe_notifications(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Yield an event that is set whenever a command server has committed events."""
        return self._subscribe(streams.WAKE_SUBJECT)

    def subscribe_recreation_requests(self, epoch: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """Yield an event that is set whenever a reader needs removed messages of this epoch."""
        return self._subscribe(streams.RECREATE_SUBJECT, epoch.encode())

    @asynccontextmanager
    async def subscribe_publication_requests(self, receive: Callable[[str], None]) -> AsyncIterator[None]:
        """Call `receive` with the reply subject of each request of a reader (`PublicationClock`)."""
        async with self._receive(
            streams.PUBLISHED_SUBJECT, lambda _subject, reply, _data, _headers: receive(reply)
        ):
            yield

    async def confirm_publication(self, reply: str, epoch: str, sequence: int) -> None:
        """Reply to a publication request. A reply that gets lost is requested again."""
        await self.reply(reply, f"{epoch}/{sequence}".encode())

    async def reply(self, subject: str, data: bytes) -> None:
        """Send a signed reply, unless NATS is unreachable."""
        with suppress(*UNREACHABLE):
            await self._connection.client.publish(subject, self._signer.sign(data, subject).encode())

    @asynccontextmanager
    async def _subscribe(self, subject: str, data: bytes | None = None) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set by the messages of a subject, or by those with this data."""
        notified = asyncio.Event()

        def receive(_subject: str, _reply: str, received: bytes, _headers: object) -> None:
            if data in (None, received):
                notified.set()

        async with self._receive(subject, receive):
            yield notified

    @asynccontextmanager
    async def _receive(self, subject: str, receive: Receive) -> AsyncIterator[None]:
        """Call a function with each message of a subject."""
        subscription = await self._connection.subscribe(subject, receive)
        try:
            yield
        finally:
            with suppress(nats.errors.Error):
                await self._connection.unsubscribe(subscription)
