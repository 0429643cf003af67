"""The projector's way to Redis, and what it must be sure of before it writes there."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError  # noqa: A004 - theirs

from runtime.process import logs
from runtime.process.lifecycle import Lifecycle
from runtime.process.start_error import StartError

CONNECTIONS = 8
PATIENCE = 5.0
"""Seconds that Redis may take to answer."""
PAUSE = 0.25
"""Seconds between two attempts to reach Redis."""

log = logs.get_logger(__name__)


def connect(url: str) -> Redis:
    """Return a client that connects when it is used; close it with `aclose`.

    Raises:
        StartError: the URL is not one of Redis.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=PATIENCE,
            socket_timeout=PATIENCE,
            # At once and only once, for connections that died idle: who calls knows how to begin anew.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise StartError(f"DIPTYCH_REDIS_URL: {error}") from error
    return Redis.from_pool(pool)


async def never_evicts(redis: Redis, lifecycle: Lifecycle) -> None:
    """Wait until Redis can be reached, and make sure that it will not drop views when memory is short.

    Raises:
        StartError: it would.
    """
    while True:
        try:
            await _check_policy(redis)
            return
        except (ConnectionError, TimeoutError, OSError) as error:
            log.warning("Redis cannot be reached", error=str(error))
        if await lifecycle.wait(PAUSE):
            return


async def _check_policy(redis: Redis) -> None:
    try:
        policy = (await redis.config_get("maxmemory-policy")).get("maxmemory-policy")
    except ResponseError as error:  # managed servers forbid CONFIG
        log.warning("Redis does not tell its maxmemory-policy; it must be noeviction", error=str(error))
        return
    if policy != "noeviction":
        raise StartError(f"Redis must run with maxmemory-policy noeviction, not {policy}")


async def answers(redis: Redis) -> bool:
    """Return whether Redis answers now."""
    try:
        return bool(await redis.ping())
    except (RedisError, OSError):
        return False
