"""Skipped events: the copy in Redis, and the relay's replies over NATS."""

from typing import Any

import msgspec
from redis.asyncio import Redis

from contracts.signed_tokens import InvalidToken
from contracts.skips import (
    INCARNATION,
    PAGE_SIZE,
    SKIPS_SUBJECT,
    SkippedEvent,
    SkipsRequest,
    decode_reply,
    encode,
    name_field,
    parse_field,
)
from contracts.view_layout import View
from projector.skips import Event, SkipsUnknown
from runtime.jetstream import UNREACHABLE, Connection

TIMEOUT = 2.0
"""Seconds to wait for a reply."""


class RedisSkips:
    """The skipped events of one projection. The port `SkipSource` documents the methods.

    Args:
        redis: the connection.
        nats: the connection.
        view: of the projection, in any generation.
    """

    def __init__(self, redis: Redis, nats: Connection, view: View) -> None:
        self._redis = redis
        self._nats = nats
        self._view = view

    async def read_copy(self, incarnation: str) -> frozenset[Event] | None:
        """Return the copy; None if there is none of this incarnation."""
        copy: Any = await self._redis.hgetall(self._view.skips)
        if copy.pop(INCARNATION.encode(), b"").decode(errors="replace") != incarnation:
            return None
        events = (parse_field(field.decode(errors="replace")) for field in copy)
        return frozenset(event for event in events if event is not None)

    async def read_number(self) -> int:
        """Return the number of events in the copy, whatever its incarnation; -1 without a copy."""
        length: Any = await self._redis.hlen(self._view.skips)
        return int(length) - 1

    async def is_skipped(self, event: Event, incarnation: str) -> bool:
        """Return whether the copy has an event."""
        values: Any = await self._redis.hmget(self._view.skips, INCARNATION, name_field(*event))
        return bool(values[0] == incarnation.encode() and values[1] is not None)

    async def renew_copy(self, incarnation: str) -> frozenset[Event]:
        """Ask a relay, write the copy, and return it.

        Raises:
            SkipsUnknown: no relay of this incarnation has replied.
        """
        events = frozenset[Event]()
        after: int | None = 0
        while after is not None:
            page = await self._ask(incarnation, after)
            events |= {(event.stream, event.version) for event in page}
            after = page[-1].number if len(page) == PAGE_SIZE else None
        await self._write(incarnation, events)
        return events

    async def _ask(self, incarnation: str, after: int) -> list[SkippedEvent]:
        request = encode(SkipsRequest(self._view.projection, after))
        try:
            message = await self._nats.client.request(SKIPS_SUBJECT, request, timeout=TIMEOUT)
            reply = decode_reply(self._nats.feed.verify_reply(message))
        except (*UNREACHABLE, InvalidToken, msgspec.MsgspecError) as error:
            raise SkipsUnknown(f"no relay has told which events to skip: {error!r}") from error
        if reply.incarnation != incarnation:
            raise SkipsUnknown(f"the relay's database has the incarnation {reply.incarnation}")
        return list(reply.events)

    async def _write(self, incarnation: str, events: frozenset[Event]) -> None:
        """Write the copy. Events that others have added to one of this incarnation meanwhile stay."""
        fields: Any = {name_field(*event): "" for event in events} | {INCARNATION: incarnation}
        key = self._view.skips
        stored: Any = await self._redis.hget(key, INCARNATION)
        async with self._redis.pipeline(transaction=True) as pipe:
            if stored != incarnation.encode():
                pipe.delete(key)
            pipe.hset(key, mapping=fields)
            await pipe.execute()
