"""Retries of parked aggregates without an operations server."""

from collections.abc import Collection

from redis.asyncio import Redis

from contracts.view_layout import View
from operations.parked_aggregates import retry_parked
from runtime.process.settings import Settings


async def retry(settings: Settings, view: View, ids: Collection[str]) -> int:
    """Retry aggregates as the operations server does, in the Redis of the settings."""
    async with Redis.from_url(settings.redis_url) as client:
        return await retry_parked(client, view, ids)
