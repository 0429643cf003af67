"""The moment up to which all committed events are known to be in the stream.

How it works. A reader of the stream cannot see the events that no relay has published yet. It therefore asks
the relay, which replies once everything is in the stream that was committed before the request. The reader
counts from the moment at which it asked, on its own monotonic clock: no two clocks are compared, and neither
a slow reply nor one that was held up by a frozen process makes the moment too late. While the relay, NATS or
PostgreSQL is away there are no replies, and the moment of the last one grows old.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn

from contracts import streams
from contracts.view_layout import parse_checkpoint
from runtime.jetstream.connection import Connection
from runtime.process import logs

log = logs.get_logger(__name__)

INTERVAL = 0.7
"""Seconds between two requests."""
TIMEOUT = 2.0
"""Seconds to wait for a reply. A request that the relay missed is not repeated by NATS."""


@dataclass(frozen=True, slots=True)
class Publication:
    """All events committed before `asked_at` are in the stream of this epoch."""

    asked_at: float
    """On the monotonic clock, in seconds."""
    epoch: str
    sequence: int
    """The stream has reached at least this sequence, unless it lost messages since."""


class PublicationClock:
    """Asks the relay again and again; `latest` is the last reply, None before the first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.latest: Publication | None = None
        self.observe: Callable[[], None] = lambda: None
        """Called at each reply."""

    async def run(self) -> NoReturn:
        """Ask until cancelled."""
        while True:
            began = monotonic()
            try:
                reply = await self._connection.client.request(streams.PUBLISHED_SUBJECT, timeout=TIMEOUT)
                epoch, sequence = parse_checkpoint(self._connection.feed.verify_reply(reply))
                self.latest = Publication(began, epoch, sequence)
                self.observe()
            except Exception:  # no relay leads, or NATS is away, or starts: the last reply stays true
                log.debug("No reply of the relay", exc_info=True)
            await asyncio.sleep(max(0.0, INTERVAL - (monotonic() - began)))


async def request_recreation(connection: Connection, epoch: str) -> None:
    """Ask the relay to recreate a stream of this epoch from PostgreSQL, if messages were removed from it.

    The request may get lost; a reader repeats it for as long as it needs the messages.

    Raises:
        nats.errors.Error: NATS cannot be reached.
    """
    await connection.client.publish(streams.RECREATE_SUBJECT, epoch.encode())
