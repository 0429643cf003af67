"""The address and credentials of Redis, from a URL like `rediss://user:password@host:6379/0`."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, parse_url

from runtime.process.start_error import InvalidSetting
from runtime.redis.credentials import split_url
from runtime.tls.store_context import StoreContext

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""The options that name files."""


@contextmanager
def checking_url() -> Iterator[None]:
    """Raise InvalidSetting for an error of the URL within."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:  # OSError: a certificate's file
        raise InvalidSetting(f"DIPTYCH_REDIS_URL: {error}") from error


def parse_address(url: str) -> "RedisAddress":
    """Return the address.

    Raises:
        InvalidSetting: the URL is not a Redis URL.
    """
    with checking_url():
        return RedisAddress(url)


class RedisAddress:
    """A `redis://` or `rediss://` address, with the query options of REDIS_OPTIONS.

    Raises:
        ValueError: the URL is not such an address.
    """

    def __init__(self, url: str) -> None:
        plain_url, credentials = split_url(url)
        options = {**parse_url(plain_url), **credentials}
        connection_class = options.pop("connection_class", Connection)
        if not issubclass(connection_class, Connection):
            raise ValueError("not a redis:// or rediss:// URL")
        self._redis = connection_class(**options)
        self._tls = self._create_context(options) if isinstance(self._redis, SSLConnection) else None

    @staticmethod
    def _create_context(options: Mapping[str, Any]) -> StoreContext:
        def create() -> ssl.SSLContext:
            return SSLConnection(**options).ssl_context.get()

        paths = [options[name] for name in FILES if name in options]
        return StoreContext("DIPTYCH_REDIS_URL", paths, create)

    def __str__(self) -> str:
        return f"{self._redis.host}:{self._redis.port}"

    @property
    def handshake(self) -> list[tuple[str | int, ...]]:
        """The commands that begin a connection: they authenticate and select the database."""
        redis = self._redis
        commands: list[tuple[str | int, ...]] = []
        if redis.credential_provider:
            commands.append(("AUTH", *redis.credential_provider.get_credentials()))
        elif redis.password:
            commands.append(("AUTH", redis.username or "default", redis.password))
        if redis.db:
            commands.append(("SELECT", int(redis.db)))
        return commands

    def _get_context(self) -> ssl.SSLContext | None:
        return self._tls.get() if self._tls else None

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Open a connection.

        Raises:
            OSError: the connection is refused, or the certificate is not trusted.
        """
        loop = asyncio.get_running_loop()
        await loop.create_connection(protocol, self._redis.host, self._redis.port, ssl=self._get_context())

    async def open_streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection as a pair of streams; raises like `connect`."""
        return await asyncio.open_connection(self._redis.host, self._redis.port, ssl=self._get_context())
