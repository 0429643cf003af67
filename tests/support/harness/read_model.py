"""A read model without a projector: writes views to Redis in the layout of contracts/view_layout.py."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from contracts.streams import PARTITIONS
from contracts.view_layout import GENERATION, View
from query_server.fresh_reader import FreshReader
from query_server.redis_client import RedisClient
from query_server.service import QueryHandler
from query_server.view_reader import ViewReader
from runtime.grpc.waits import compute_deadline
from runtime.redis.address import RedisAddress
from tests.support.harness.freshness import make_freshness

INCARNATION = "5a1f3c8e-0000-4000-8000-000000000001"
ARCHIVED_AT = 1_767_323_045_678
"""Milliseconds since 1970: 2026-01-02T03:04:05.678Z."""
Entry = tuple[str, str]
"""An index key and a member."""
Contribution = tuple[str, str, str]
"""A counters key, a counter and digits."""


@dataclass(frozen=True)
class Projections:
    """The two projections of an aggregate: its view and its history, and the data derived from its view."""

    view: View
    history: View
    id_field: str
    index_entries: Callable[[Any], Sequence[Entry]]
    contributions: Callable[[Any], Sequence[Contribution]]

    def id_of(self, message: Any) -> str:
        return str(getattr(message, self.id_field))

    def at(self, generation: str) -> "Projections":
        """Return the same projections in another generation."""
        view, history = self.view.at(generation), self.history.at(generation)

        def index_entries(message: Any) -> list[Entry]:
            return [(view.move(key), member) for key, member in self.index_entries(message)]

        def contributions(message: Any) -> list[Contribution]:
            return [(view.move(key), *rest) for key, *rest in self.contributions(message)]  # type: ignore[misc]

        return replace(
            self, view=view, history=history, index_entries=index_entries, contributions=contributions
        )


@dataclass(frozen=True)
class ReadModel:
    """Writes to Redis as a projector does, and reads as the query server does."""

    redis: Redis
    reader: RedisClient
    projections: Projections

    @property
    def views(self) -> ViewReader:
        return ViewReader(self.reader, self.projections.view)

    @property
    def histories(self) -> ViewReader:
        return ViewReader(self.reader, self.projections.history)

    def at(self, generation: str) -> "ReadModel":
        """Return the same read model in another generation."""
        return replace(self, projections=self.projections.at(generation))

    async def serve(self, *, notify: bool = True) -> None:
        """Switch both projections to this generation."""
        views = (self.projections.view, self.projections.history)
        await self.redis.mset({view.serving: view.generation for view in views})
        if notify:
            for view in views:
                await self.redis.publish(view.at(GENERATION).change_channel, msgspec.msgpack.encode([[], []]))

    async def delete(self) -> None:
        """Delete all keys of this generation, as a prune does."""
        for view in (self.projections.view, self.projections.history):
            keys = [key async for key in self.redis.scan_iter(f"*:{view.projection}:{view.generation}:*")]
            await self.redis.delete(*view.state_keys, *keys)

    async def mark_ready(self, incarnation: str = INCARNATION) -> None:
        """Set the caught-up markers."""
        await self.redis.mset(
            {self.projections.view.ready: incarnation, self.projections.history.ready: incarnation}
        )

    async def mark_rebuilding(self) -> None:
        """Delete the caught-up markers."""
        await self.redis.delete(self.projections.view.ready, self.projections.history.ready)

    async def set_as_of(self, millis: int, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        """Set the time, in ms since 1970, up to which these partitions include all published events."""
        for partition in partitions:
            await self.redis.hset(self.projections.view.as_of, str(partition), str(millis))

    async def put(self, *messages: Any) -> None:
        """Write views with their index entries and counters."""
        await self.put_without_derived(*messages)
        await self._write_derived(*messages)

    async def put_without_derived(self, *messages: Any) -> None:
        """Write the hashes of views alone, as a reader sees them that has read the indexes before."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for message in messages:
                fields: dict[Any, Any] = {"data": message.SerializeToString(), "version": message.version}
                fields["entries"] = msgspec.json.encode(self.projections.index_entries(message))
                fields["contributions"] = msgspec.json.encode(self.projections.contributions(message))
                pipe.hset(self._key(message), mapping=fields)
            await pipe.execute()

    async def _write_derived(self, *messages: Any) -> None:
        counted: Any = [await self.redis.hget(self._key(message), "counted") for message in messages]
        counters_keys = set()
        async with self.redis.pipeline(transaction=False) as pipe:
            for message, previous in zip(messages, counted, strict=True):
                for index, member in self.projections.index_entries(message):
                    pipe.zadd(index, {member: 0})
                for key, counter, amount in msgspec.json.decode(previous or b"[]"):
                    pipe.hincrby(key, counter, -int(amount))
                contributions = self.projections.contributions(message)
                for key, counter, amount in contributions:
                    pipe.hincrby(key, counter, int(amount))
                    counters_keys.add(key)
                pipe.hset(self._key(message), "counted", msgspec.json.encode(contributions))
            await pipe.execute()
        for key in counters_keys:
            await self._drop_zeros(key)

    async def _drop_zeros(self, key: str) -> None:
        counters: Any = await self.redis.hgetall(key)
        if zeros := [counter for counter, amount in counters.items() if int(amount) == 0]:
            await self.redis.hdel(key, *zeros)

    async def put_history(self, view_id: str, *entries: Any) -> None:
        """Write the complete history of an aggregate."""
        view = self.projections.history
        history: Any = view.message(**{self.projections.id_field: view_id, "version": len(entries)})
        fields: dict[Any, Any] = {"data": history.SerializeToString(), "version": history.version}
        await self.redis.hset(view.key(view_id), mapping=fields)
        history_entries: Any = {str(entry.version): entry.SerializeToString() for entry in entries}
        await self.redis.hset(view.history(view_id), mapping=history_entries)

    async def put_tombstone(self, view_id: str, version: int) -> None:
        """Archive an aggregate in both projections."""
        tombstone: dict[Any, Any] = {
            "version": version,
            "revision": 1,
            "archived": ARCHIVED_AT,
            "entries": "[]",
        }
        for view in (self.projections.view, self.projections.history):
            await self.redis.delete(view.key(view_id), view.history(view_id))
            await self.redis.hset(view.key(view_id), mapping=tombstone)

    async def archive_entries(self, view_id: str, before: int) -> None:
        """Remove the history entries of versions below one."""
        view = self.projections.history
        await self.redis.hdel(view.history(view_id), *map(str, range(1, before)))
        await self.redis.hset(view.key(view_id), "history_from", str(before))

    def _key(self, message: Any) -> str:
        return self.projections.view.key(self.projections.id_of(message))


async def respond(
    handler: QueryHandler,
    views: ViewReader,
    request: Any,
    remaining: float | None = None,
    others: Sequence[ViewReader] = (),
) -> bytes:
    """Return the serialised response to a request, as the query server calls the handler."""
    token, deadline = request.at_least_as_fresh, compute_deadline(remaining)

    def make_reader(views: ViewReader, joined: tuple[FreshReader, ...] = ()) -> FreshReader:
        return FreshReader(views, make_freshness(views), token, deadline, joined)

    return await handler(make_reader(views, tuple(map(make_reader, others))), request)


@asynccontextmanager
async def read_model(redis_url: str, projections: Projections) -> AsyncIterator[ReadModel]:
    """Yield an empty read model whose projections have caught up."""
    async with Redis.from_url(redis_url) as redis, RedisClient(RedisAddress(redis_url)) as reader:
        model = ReadModel(redis, reader, projections)
        await model.mark_ready()
        yield model


def record_round_trips(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of commands of each pipeline; a command outside a pipeline fails."""
    trips: list[int] = []
    pipeline = model.reader.pipeline

    async def record(*commands: tuple[str | bytes | int, ...]) -> list[object]:
        trips.append(len(commands))
        return await pipeline(*commands)

    monkeypatch.setattr(model.reader, "pipeline", record)
    monkeypatch.setattr(model.reader, "call", None)
    return trips
