"""A bounded pool of connections to Redis."""

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runtime.redis.address import checking_url


def create_pool(url: str, *, connections: int, timeout: float) -> BlockingConnectionPool:
    """Return a pool, which connects when it is first used.

    Args:
        url: `redis://…`.
        connections: their maximum number.
        timeout: seconds to wait for a free connection, to connect, and for each reply.

    Raises:
        InvalidSetting: the URL is not a Redis URL.
    """
    with checking_url():
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # One immediate retry, for connections that died while idle. The caller retries everything else.
            retry=Retry(NoBackoff(), 1),
        )
        pool.connection_class(**pool.connection_kwargs)  # checks the options
    return pool
