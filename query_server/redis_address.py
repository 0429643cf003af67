"""Where Redis is and how to enter it, from an address like `rediss://user:password@host:6379/0`."""

import asyncio
from collections.abc import Callable

from redis.asyncio.connection import Connection, SSLConnection, parse_url


class RedisAddress:
    """A `redis://` or `rediss://` address, with the query options `ssl_*` of redis-py.

    Raises:
        ValueError: it is not one.
    """

    def __init__(self, url: str) -> None:
        options = parse_url(url)
        kind = options.pop("connection_class", Connection)
        if not issubclass(kind, Connection):
            raise ValueError("the address of Redis begins with redis:// or rediss://")
        self._redis = kind(**options)
        self._tls = self._redis.ssl_context.get() if isinstance(self._redis, SSLConnection) else None

    def __str__(self) -> str:
        return f"{self._redis.host}:{self._redis.port}"

    @property
    def greeting(self) -> list[tuple[str | int, ...]]:
        """The commands that open a connection: who we are, and which database we mean."""
        redis = self._redis
        commands: list[tuple[str | int, ...]] = []
        if redis.password:
            commands.append(("AUTH", redis.username or "default", redis.password))
        if redis.db:
            commands.append(("SELECT", int(redis.db)))
        return commands

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Open a connection.

        Raises:
            OSError: nobody listens there, or the certificate is not trusted.
        """
        loop = asyncio.get_running_loop()
        await loop.create_connection(protocol, self._redis.host, self._redis.port, ssl=self._tls)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection as a pair of streams; raises the same."""
        return await asyncio.open_connection(self._redis.host, self._redis.port, ssl=self._tls)
