"""Queries with a consistency token wait until sagas have processed the events that it names."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import Any

from contracts import streams
from process_manager.queries.awaited_events import AwaitedEvents, ReadStreamEnd, RequiredEvents
from process_manager.queries.feed_reader import FeedReader
from process_manager.saga import Saga
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import Waits, Woken, compute_deadline

MAX_INCARNATION_AGE = 0.5
"""Seconds after which the incarnation is read again."""
RETRY_AFTER = 0.1
"""Seconds after which sagas that were behind may have processed the token's command."""

ReadIncarnation = Callable[[], Awaitable[str]]
"""Returns the database incarnation whose events the stream contains; empty if there is no stream."""


class Freshness:
    """Delays queries until the sagas are up to date.

    Args:
        tokens: decodes consistency tokens.
        waits: bounds the queries that wait.
        feeds: reads how far the sagas are.
        read_incarnation: reads the incarnation of the JetStream stream.
        read_stream_end: reads the end of one aggregate's stream.
    """

    def __init__(
        self,
        tokens: RequestTokens,
        waits: Waits,
        feeds: FeedReader,
        read_incarnation: ReadIncarnation,
        read_stream_end: ReadStreamEnd,
    ) -> None:
        self._tokens = tokens
        self._waits = waits
        self._read_incarnation = read_incarnation
        self._awaited_events = AwaitedEvents(feeds, read_stream_end)
        self._incarnation: asyncio.Future[str] | None = None
        self._incarnation_expires = 0.0
        self.wake = self._awaited_events.wake
        """Look again soon; called after each delivery of events."""

    async def wait_for(self, sagas: Collection[Saga[Any]], token: str, remaining: float | None) -> None:
        """Wait until sagas have processed the token's versions of the streams to which they subscribe.

        Args:
            sagas: the sagas.
            token: the consistency token; empty for none.
            remaining: seconds until the call's deadline; None without a deadline.

        Raises:
            RpcError: `TOKEN_INVALID`; `TOKEN_OUTDATED` if the database was restored after it issued it;
                `VIEW_REBUILDING` if the stream still belongs to an earlier incarnation than the token;
                `VIEW_BEHIND` if time ran out; `TOO_MANY_WAITS`.
        """
        if not token:
            return
        deadline, content = compute_deadline(remaining), self._tokens.read_consistency_token(token)
        incarnation = await self._get_incarnation()
        if incarnation < content.incarnation:
            raise RpcError("VIEW_REBUILDING", "the event stream is being rebuilt", retry_after=1.0)
        if incarnation > content.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token was issued before the database was restored")
        required = [
            RequiredEvents.of(saga, each.stream, each.version)
            for saga in sagas
            for each in content.streams
            if streams.stream_type(each.stream)
            in {subscription.stream_type for subscription in saga.subscribes_to}
        ]
        # What other queries wait for is missing without a read of our own: the next check is near.
        awaited = [each for each in required if self._awaited_events.is_awaited(each)]
        others = [each for each in required if not self._awaited_events.is_awaited(each)]
        missing = awaited + await self._awaited_events.find_missing(others)
        if not missing:
            return
        with self._waits.begin(deadline) as wait:
            while missing:
                woken = await self._awaited_events.wait_for(missing[-1], wait)
                if woken is Woken.TIME_UP:
                    text = "the sagas have not processed the token's command yet"
                    raise RpcError("VIEW_BEHIND", text, retry_after=RETRY_AFTER)
                if woken is Woken.REACHED:
                    missing.pop()
                else:
                    missing = await self._awaited_events.find_missing(missing)

    async def _get_incarnation(self) -> str:
        """Return the stream's incarnation, read once for all queries that arrive together."""
        now = monotonic()
        if self._incarnation is None or now >= self._incarnation_expires:
            self._incarnation = asyncio.ensure_future(self._read_incarnation())
            self._incarnation_expires = now + MAX_INCARNATION_AGE
        return await asyncio.shield(self._incarnation)
