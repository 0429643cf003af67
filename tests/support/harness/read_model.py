"""A read model without a projector: writes orders to Redis in the layout of contracts/view_layout.py."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from diptych.ordering.v1.types_pb2 import Order, OrderHistory, OrderHistoryEntry
from google.type.money_pb2 import Money
from redis.asyncio import Redis

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from projector.projections.ordering.order import index_entries
from query_server.fresh_reader import FreshReader
from query_server.redis_address import RedisAddress
from query_server.redis_client import RedisClient
from query_server.service import FreshHandler
from query_server.view_reader import ViewReader

ORDERS, HISTORIES = View.of(Order), View.of(OrderHistory)
INCARNATION = "5a1f3c8e-0000-4000-8000-000000000001"


def order(
    order_id: str,
    *,
    customer: str = "c-1",
    state: Order.State.ValueType = Order.STATE_PLACED,
    version: int = 1,
    placed: int = 0,
    total: Money | None = None,
) -> Order:
    """Return an order; `placed` is in microseconds since 1970."""
    view = Order(order_id=order_id, version=version, state=state, customer_id=customer, total=total)
    view.place_time.FromMicroseconds(placed)
    return view


def contributions(view: Order) -> list[tuple[str, str, str]]:
    """Return an order's contributions to its customer's counters, as (key, counter, digits)."""
    state, currency = Order.State.Name(view.state), view.total.currency_code
    counters = {
        f"orders/{state}": 1,
        f"units/{state}/{currency}": view.total.units,
        f"nanos/{state}/{currency}": view.total.nanos,
    }
    key = ORDERS.counters("customer", view.customer_id)
    return [(key, counter, str(amount)) for counter, amount in counters.items() if amount]


@dataclass(frozen=True)
class ReadModel:
    """Writes to Redis as a projector does, and reads as the query server does."""

    redis: Redis
    reader: RedisClient
    orders: ViewReader
    histories: ViewReader

    async def mark_ready(self, incarnation: str = INCARNATION) -> None:
        """Set the caught-up markers."""
        await self.redis.mset({ORDERS.ready: incarnation, HISTORIES.ready: incarnation})

    async def mark_rebuilding(self) -> None:
        """Delete the caught-up markers."""
        await self.redis.delete(ORDERS.ready, HISTORIES.ready)

    async def set_as_of(self, millis: int, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        """Set the time, in ms since 1970, up to which these partitions include all published events."""
        for partition in partitions:
            await self.redis.hset(ORDERS.as_of, str(partition), str(millis))

    async def put(self, *orders: Order) -> None:
        """Write orders with their index entries and counters."""
        await self.put_without_derived(*orders)
        await self._write_derived(*orders)

    async def put_without_derived(self, *orders: Order) -> None:
        """Write the hashes of orders alone, as a reader sees them that has read the indexes before."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for view in orders:
                fields: dict[Any, Any] = {"data": view.SerializeToString(), "version": view.version}
                fields["entries"] = msgspec.json.encode(index_entries(view))
                fields["contributions"] = msgspec.json.encode(contributions(view))
                pipe.hset(ORDERS.key(view.order_id), mapping=fields)
            await pipe.execute()

    async def _write_derived(self, *orders: Order) -> None:
        counted: Any = [await self.redis.hget(ORDERS.key(view.order_id), "counted") for view in orders]
        async with self.redis.pipeline(transaction=False) as pipe:
            for view, previous in zip(orders, counted, strict=True):
                for index, member in index_entries(view):
                    pipe.zadd(index, {member: 0})
                for key, counter, amount in msgspec.json.decode(previous or b"[]"):
                    pipe.hincrby(key, counter, -int(amount))
                for key, counter, amount in contributions(view):
                    pipe.hincrby(key, counter, int(amount))
                pipe.hset(ORDERS.key(view.order_id), "counted", msgspec.json.encode(contributions(view)))
            await pipe.execute()
        for view in orders:
            await self._drop_zeros(ORDERS.counters("customer", view.customer_id))

    async def _drop_zeros(self, key: str) -> None:
        counters: Any = await self.redis.hgetall(key)
        if zeros := [counter for counter, amount in counters.items() if int(amount) == 0]:
            await self.redis.hdel(key, *zeros)

    async def put_history(self, order_id: str, *entries: OrderHistoryEntry) -> None:
        """Write the complete history of an order."""
        history = OrderHistory(order_id=order_id, version=len(entries))
        fields: dict[Any, Any] = {"data": history.SerializeToString(), "version": history.version}
        await self.redis.hset(HISTORIES.key(order_id), mapping=fields)
        history_entries: Any = {str(entry.version): entry.SerializeToString() for entry in entries}
        await self.redis.hset(HISTORIES.history(order_id), mapping=history_entries)


async def respond(
    handler: FreshHandler, views: ViewReader, request: Any, remaining: float | None = None
) -> bytes:
    """Return the serialised response to a request, as the query server calls the handler."""
    return await handler(FreshReader(views, request.at_least_as_fresh, remaining), request)


@asynccontextmanager
async def read_model(redis_url: str) -> AsyncIterator[ReadModel]:
    """Yield an empty read model whose projections have caught up."""
    async with Redis.from_url(redis_url) as redis, RedisClient(RedisAddress(redis_url)) as reader:
        model = ReadModel(redis, reader, ViewReader(reader, ORDERS), ViewReader(reader, HISTORIES))
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
