"""The lag of the read model during a load test."""

import asyncio
from statistics import median
from time import time

import asyncpg
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from contracts.streams import aggregate_id
from contracts.view_layout import View
from runtime.process.settings import Settings

PROBE_INTERVAL = 0.25
"""Seconds between two reads of the newest order."""
ORDERS = View.of(Order)
SELECT_NEWEST = """
SELECT stream, version, extract(epoch FROM recorded_at)::float8 FROM events
WHERE stream LIKE 'ordering.order.%' ORDER BY position DESC LIMIT 1
"""


class LagProbe:
    """Samples the time from an order's event to its effect in the read model."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.milliseconds: list[float] = []

    async def run(self) -> None:
        """Take samples until cancelled."""
        connection = await asyncpg.connect(self._settings.database_url)
        previous = await connection.fetchrow(SELECT_NEWEST)  # from before this run
        try:
            async with Redis.from_url(self._settings.redis_url) as redis:
                while True:
                    row = await connection.fetchrow(SELECT_NEWEST)
                    if row is not None and row != previous:
                        previous = row
                        self.milliseconds.append(1000 * await self._wait_until_visible(redis, *row))
                    await asyncio.sleep(PROBE_INTERVAL)
        finally:
            await connection.close()

    @staticmethod
    async def _wait_until_visible(redis: Redis, stream: str, version: int, recorded_at: float) -> float:
        """Wait until an order's view includes a version; return the seconds since it was recorded."""
        key = ORDERS.key(aggregate_id(stream))
        while int(await redis.hget(key, "version") or 0) < version:
            await asyncio.sleep(0.001)
        return time() - recorded_at

    def __str__(self) -> str:
        samples = sorted(self.milliseconds)
        if not samples:
            return "no order was placed"
        return f"median {median(samples):.0f} ms, maximum {samples[-1]:.0f} ms, of {len(samples)} samples"
