"""Waits until sagas have processed the events that a consistency token names.

How it works:

- An instance keeps the version of its own stream, which is compared with the token's.
- Events of another stream may belong to any instance or to none, and so may events from before a saga's
  beginning. There the feed's checkpoint is compared with the stream's last message: behind it, each instance
  has received the stream's events that belong to it, unless the stream is parked or an instance has failed
  on one of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from contracts import streams
from process_manager.feed_reader import FeedReader
from process_manager.saga import Saga
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError

DEADLINE_MARGIN = 0.05
"""Seconds before the call's deadline at which waiting ends, so that the error still reaches the caller."""
DEFAULT_TIMEOUT = 2.0
"""Maximum wait of a call without a deadline, in seconds."""
CHECK_INTERVAL = 0.02
"""Seconds between two checks."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last message of a stream in JetStream."""

    epoch: str
    sequence: int
    version: int
    """The version of its event."""


ReadStreamEnd = Callable[[str], Awaitable[StreamEnd | None]]
"""Returns the end of an aggregate's stream; None if JetStream has no message of it."""
ReadIncarnation = Callable[[], Awaitable[str]]
"""Returns the database incarnation whose events the stream contains; empty if there is no stream."""


class Freshness:
    """Delays queries until the sagas are up to date.

    Args:
        tokens: decodes consistency tokens.
        feeds: reads how far the sagas are.
        read_incarnation: reads the incarnation of the JetStream stream.
        read_stream_end: reads the end of one aggregate's stream.
    """

    def __init__(
        self,
        tokens: RequestTokens,
        feeds: FeedReader,
        read_incarnation: ReadIncarnation,
        read_stream_end: ReadStreamEnd,
    ) -> None:
        self._tokens = tokens
        self._feeds = feeds
        self._read_stream_end = read_stream_end
        self._read_incarnation = read_incarnation

    async def wait_for(self, saga: Saga[Any], token: str, remaining: float | None) -> None:
        """Wait until a saga has processed the token's versions of the streams to which it subscribes.

        Args:
            saga: the saga.
            token: the consistency token; empty for none.
            remaining: seconds until the call's deadline; None without a deadline.

        Raises:
            RpcError: `TOKEN_INVALID`; `TOKEN_OUTDATED` if the database was restored after it issued it;
                `VIEW_REBUILDING` if the stream still belongs to an earlier incarnation than the token;
                `VIEW_BEHIND` if time ran out.
        """
        if not token:
            return
        content = self._tokens.read_consistency_token(token)
        incarnation = await self._read_incarnation()
        if incarnation < content.incarnation:
            raise RpcError("VIEW_REBUILDING", "the event stream is being rebuilt", retry_after=1.0)
        if incarnation > content.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token was issued before the database was restored")
        types = {subscription.stream_type for subscription in saga.subscribes_to}
        required = [stream for stream in content.streams if streams.stream_type(stream.stream) in types]
        clock = asyncio.get_running_loop().time
        deadline = clock() + (DEFAULT_TIMEOUT if remaining is None else remaining - DEADLINE_MARGIN)
        while required:
            if await self._has_processed(saga, required[-1].stream, required[-1].version):
                required.pop()
            elif clock() >= deadline:
                raise RpcError(
                    "VIEW_BEHIND", "the sagas have not processed the token's command yet", retry_after=0.1
                )
            else:
                await asyncio.sleep(min(CHECK_INTERVAL, max(deadline - clock(), 0)))

    async def _has_processed(self, saga: Saga[Any], stream: str, version: int) -> bool:
        """Return whether the instances have processed the events of a stream up to this version."""
        if streams.stream_type(stream) == saga.own_type:
            if await self._feeds.read_version(saga.name, streams.aggregate_id(stream)) >= version:
                return True
            if saga.begins == "first_event":
                return False
        end = await self._read_stream_end(stream)
        if end is None or end.version < version:
            return False
        return await self._feeds.has_passed(saga.name, stream, (end.epoch, end.sequence))
