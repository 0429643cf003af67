"""The requests of readers that wait until all earlier committed events are published. Pure.

How it works. A read of the outbox sees every event that was committed before it began. So a request that was
received before a read is fulfilled once everything that this read could see is published. While the outbox
has more events than one read returns, that may never be the case: then the request is bound to the highest
position that is committed at that moment. Reads return the lowest positions first, so the request is
fulfilled once a later read was published up to that position.
"""

from collections import deque
from collections.abc import Sequence

MAX_BOUND = 1_000
"""Requests that wait for a position, at most; their senders ask again."""


class PublicationRequests:
    """Reply subjects of requests, from their receipt until they are fulfilled."""

    def __init__(self) -> None:
        self._received: list[str] = []
        self._unbound: list[str] = []
        """Received before the current read."""
        self._bound: deque[tuple[int, str]] = deque(maxlen=MAX_BOUND)
        """Received before the current read, and the position to publish."""

    def receive(self, reply: str) -> None:
        """Add a request."""
        self._received.append(reply)

    def begin_read(self) -> None:
        """Record that a read of the outbox begins."""
        self._unbound += self._received
        self._received.clear()

    def take_fulfilled(self, published_to: int | None) -> Sequence[str]:
        """Remove and return the requests that are fulfilled now that the result of the read is published.

        Args:
            published_to: the position of the last event; None if the read has returned all pending events.
        """
        if published_to is None:
            fulfilled = [*(reply for _, reply in self._bound), *self._unbound]
            self._bound.clear()
            self._unbound.clear()
            return fulfilled
        fulfilled = []
        while self._bound and self._bound[0][0] <= published_to:
            fulfilled.append(self._bound.popleft()[1])
        return fulfilled

    @property
    def has_unbound(self) -> bool:
        """Whether `bind` has something to do."""
        return bool(self._unbound)

    def bind(self, position: int) -> None:
        """Bind the remaining requests to a position that was read after they were received."""
        self._bound.extend((position, reply) for reply in self._unbound)
        self._unbound.clear()
