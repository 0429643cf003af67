"""Clients of Redis, from the setting `redis_url`."""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runtime.redis.address import checking_url
from runtime.redis.credentials import split_url


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
        plain_url, credentials = split_url(url)
        pool = BlockingConnectionPool.from_url(
            plain_url,
            **credentials,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # One immediate retry, for connections that died while idle. The caller retries everything else.
            retry=Retry(NoBackoff(), 1),
        )
        pool.connection_class(**pool.connection_kwargs)  # checks the options
    return pool


def open_client(url: str, **options: Any) -> Redis:
    """Return a client with an unbounded pool, for tools; its context closes it.

    Args:
        url: `redis://…`.
        options: of `Redis.from_url`.

    Raises:
        InvalidSetting: the URL is not a Redis URL.
    """
    with checking_url():
        plain_url, credentials = split_url(url)
        return Redis.from_url(plain_url, **credentials, **options)
