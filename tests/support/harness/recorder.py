"""Records requests and events as command servers do, in transactions that commit late or not at all."""

import asyncio
import json
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
from diptych.ordering.v1 import events_pb2 as events

TYPES = (events.OrderCancelled, events.OrderConfirmed, events.OrderShipped)
CALLERS = ("alice", "bob", "carol")
OUTCOMES = ("ACCEPTED", "ACCEPTED", "CREDIT_EXCEEDED", "ORDER_NOT_FOUND")
COMMANDS = ("diptych.ordering.v1.CancelOrder", "diptych.ordering.v2.PlaceOrder")

ADD_EVENT = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
VALUES ($1, $2, $3, $4, $5::json, $6) RETURNING position
"""
ADD_REQUEST = """
INSERT INTO audit (recorded_at, caller, request_id, type, outcome, stream, correlation_id, causation_id,
  traceparent, duration_us)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 7)
"""


def encode_metadata(**fields: Any) -> str:
    return json.dumps(fields)


class Recorder:
    """A writer of its own, with a connection of its own."""

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self._random = random
        self._versions: dict[str, int] = {}

    async def record(self, database_url: str, count: int) -> None:
        """Record transactions one after the other; some wait before their commit, some are rolled back."""
        connection = await asyncpg.connect(database_url)
        try:
            for _ in range(count):
                await self._record_one(connection)
        finally:
            await connection.close()

    async def _record_one(self, connection: "asyncpg.Connection[Any]") -> None:
        versions = dict(self._versions)
        transaction = connection.transaction()
        await transaction.start()
        # As a command server: it locks streams, and reads the time of its decisions with the locks.
        await connection.fetch("SELECT FROM streams WHERE id = ANY($1) FOR UPDATE", [self.name])
        now = await connection.fetchval("SELECT clock_timestamp()")
        await self._pause()
        for _ in range(self._random.randint(1, 4)):
            await self._decide(connection, now)
        await self._pause()
        if self._random.random() < 0.1:
            self._versions = versions
            await transaction.rollback()
        else:
            await transaction.commit()

    async def _pause(self) -> None:
        """Wait, mostly for a short time."""
        await asyncio.sleep(self._random.choice((0, 0, 0, 0.002, 0.01, 0.03)))

    async def _decide(self, connection: "asyncpg.Connection[Any]", now: Any) -> None:
        random = self._random
        request_id = UUID(int=random.getrandbits(128), version=4)
        stream = f"ordering.order.{self.name}-{random.randrange(5)}"
        correlation_id = random.choice((None, None, f"correlation-{random.randrange(8)}"))
        causation_id = random.choice((None, f"cause-{random.randrange(8)}"))
        outcome, command = random.choice(OUTCOMES), random.choice(COMMANDS)
        await connection.execute(
            ADD_REQUEST,
            *(
                now,
                random.choice(CALLERS),
                request_id,
                command,
                outcome,
                stream,
                correlation_id,
                causation_id,
            ),
            f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-00",
        )
        if outcome != "ACCEPTED":
            return
        for _ in range(random.randint(1, 3)):
            self._versions[stream] = self._versions.get(stream, 0) + 1
            message = random.choice(TYPES)(order_id=stream)
            metadata = encode_metadata(
                actor="alice",
                command=command,
                correlation_id=correlation_id or str(request_id),
                causation_id=str(request_id),
            )
            await connection.execute(
                ADD_EVENT,
                *(stream, self._versions[stream], message.DESCRIPTOR.full_name, message.SerializeToString()),
                *(metadata, now),
            )
