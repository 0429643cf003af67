"""The fixtures that every test may ask for."""

from tests.support.servers import (
    database_url,
    forget_settings,
    nats_server,
    nats_url,
    own_nats,
    own_postgres,
    own_redis,
    postgres,
    redis_server,
    redis_url,
)

__all__ = [
    "database_url",
    "nats_server",
    "nats_url",
    "own_nats",
    "own_postgres",
    "own_redis",
    "postgres",
    "redis_server",
    "redis_url",
]

forget_settings()
