"""How much of its memory Redis has used: a metric, and a warning before it is full.

A full Redis refuses all writes (`maxmemory-policy noeviction`): the views stand still, and nothing is lost.
"""

import asyncio
from collections.abc import Mapping
from typing import NoReturn

from redis.asyncio import Redis
from redis.exceptions import RedisError

from projector.metrics import REDIS_MEMORY_USED
from runtime.process import logs

INTERVAL = 10.0
"""Seconds between two checks."""
NEARLY_FULL = 80
"""Percent of maxmemory from which on the log warns."""

log = logs.get_logger(__name__)


async def watch_memory(redis: Redis, interval: float = INTERVAL) -> NoReturn:
    """Record the used share of Redis's memory; warn once when it is nearly full."""
    warned = False
    while True:
        try:
            percent = await read_used_percent(redis)
        except (RedisError, OSError):
            percent = None  # health tells that Redis is unreachable
        if percent is None:
            REDIS_MEMORY_USED.unset()
        else:
            REDIS_MEMORY_USED.set(percent)
            if percent >= NEARLY_FULL and not warned:
                log.warning("Redis nearly full; raise its maxmemory", percent=percent)
            warned = percent >= NEARLY_FULL
        await asyncio.sleep(interval)


async def read_used_percent(redis: Redis) -> int | None:
    """Return the used percentage of maxmemory, or None if Redis has no limit."""
    return compute_used_percent(await redis.info("memory"))


def compute_used_percent(memory: Mapping[str, int]) -> int | None:
    """Return the used percentage of maxmemory, or None if there is no limit, from `INFO memory`."""
    limit = int(memory["maxmemory"])
    return int(memory["used_memory"]) * 100 // limit if limit else None
