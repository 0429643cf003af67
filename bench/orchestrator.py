"""The ceiling of the sagas: the same fulfilment by hand, durable, and able to do nothing else.

Run as `python -m bench.orchestrator COMMAND_ADDRESS DATABASE_URL NATS_URL`, with the access token in
BENCH_TOKEN. A durable consumer puts placed orders into a table, which is the queue. Workers take orders from
it with SKIP LOCKED, send each order's commands and commit the number of the next group after each answer;
commands have ids of the order, so a repetition changes nothing. It has no timers, no compensation, no status.
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Any

import asyncpg
import nats.errors
import uvloop
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest

from bench.fulfilment_calls import Caller, list_steps
from contracts import streams
from contracts.events.ordering import EVENTS
from runtime.jetstream import connect

WORKERS, CONNECTIONS, FETCH_SIZE = 64, 16, 100
RECOVERY_INTERVAL = 10.0
"""Seconds between two searches for orders whose worker has died."""
PLACED = "diptych.ordering.v2.OrderPlaced"
CREATE = """
CREATE TABLE IF NOT EXISTS orchestrations (
  id text PRIMARY KEY, placed bytea NOT NULL, next_group int NOT NULL DEFAULT 0,
  leased_until timestamptz NOT NULL DEFAULT now(), queued_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX IF NOT EXISTS orchestrations_open ON orchestrations (queued_at) WHERE next_group < 5;
"""
INSERT = """
INSERT INTO orchestrations (id, placed) SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING
"""
TAKE = """
UPDATE orchestrations SET leased_until = now() + interval '30 s' WHERE id = (
  SELECT id FROM orchestrations WHERE next_group < 5 AND leased_until <= now()
  ORDER BY queued_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING placed, next_group
"""
ADVANCE = "UPDATE orchestrations SET next_group = $2 WHERE id = $1"
COUNT_ABANDONED = "SELECT count(*) FROM orchestrations WHERE next_group < 5 AND leased_until <= now()"


class Orchestrator:
    """A consumer and workers that share a connection pool."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", caller: Caller) -> None:
        self._pool, self._caller = pool, caller
        self._queued = asyncio.Semaphore(0)

    async def consume(self, nats_url: str) -> None:
        """Queue the placed orders; each message is acknowledged after the commit."""
        async with await connect(nats_url, "orchestrator") as connection:
            await connection.wait_until_connected()
            subject = "diptych.events.*.ordering.order.*"
            subscription = await connection.js.pull_subscribe(
                subject, durable="orchestrator", stream=streams.JETSTREAM
            )
            while True:
                with suppress(nats.errors.TimeoutError):
                    messages = await subscription.fetch(FETCH_SIZE, timeout=5)
                    types = [(message.headers or {})["ce-type"] for message in messages]
                    orders = [
                        read_order(message.data, type_)
                        for message, type_ in zip(messages, types, strict=True)
                        if EVENTS.newest(type_).DESCRIPTOR.full_name == PLACED
                    ]
                    await self._queue(orders)
                    for message in messages:
                        await message.ack()

    async def _queue(self, orders: list[PlaceOrderRequest]) -> None:
        if orders:
            contents = [order.SerializeToString() for order in orders]
            await self._pool.execute(INSERT, [order.order_id for order in orders], contents)
            for _ in orders:
                self._queued.release()

    async def recover(self) -> None:
        """Let workers take the orders that nobody works on, at the start and from time to time."""
        while True:
            for _ in range(await self._pool.fetchval(COUNT_ABANDONED)):
                self._queued.release()
            await asyncio.sleep(RECOVERY_INTERVAL)

    async def work(self) -> None:
        """Take one order after the other and fulfil it."""
        while True:
            await self._queued.acquire()
            row = await self._pool.fetchrow(TAKE)
            if row is not None:
                await self._fulfil(PlaceOrderRequest.FromString(row["placed"]), row["next_group"])

    async def _fulfil(self, order: PlaceOrderRequest, first: int) -> None:
        for number, group in enumerate(list_steps(order)[first:], first + 1):
            await self._caller.send_steps([group])
            await self._pool.execute(ADVANCE, order.order_id, number)


def read_order(data: bytes, type_: str) -> PlaceOrderRequest:
    """Return the order of an event, as its caller placed it."""
    event: Any = EVENTS.get_parser(type_)(data)
    group = event.groups[0]
    return PlaceOrderRequest(
        order_id=event.order_id,
        customer_id=event.customer_id,
        account_id=event.account_id,
        warehouse_id=group.warehouse_id,
        lines=group.lines,
    )


async def main(command_address: str, database_url: str, nats_url: str) -> None:
    caller = Caller(command_address, os.environ["BENCH_TOKEN"])
    async with asyncpg.create_pool(database_url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        await pool.execute(CREATE)
        orchestrator = Orchestrator(pool, caller)
        async with asyncio.TaskGroup() as group:
            group.create_task(orchestrator.consume(nats_url))
            group.create_task(orchestrator.recover())
            for _ in range(WORKERS):
                group.create_task(orchestrator.work())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
