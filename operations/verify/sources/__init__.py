"""Read-only access to PostgreSQL, JetStream and Redis. Sources return data; checks compare it."""

from dataclasses import dataclass

from operations.verify.sources.postgres_reader import (
    PAGE_SIZE,
    PostgresReader,
    StoredStream,
    StreamRow,
    select_page,
)
from operations.verify.sources.redis_reader import (
    Checkpoints,
    RedisReader,
    parse_contributions,
    parse_counters,
    parse_id,
)
from operations.verify.sources.stream_contents import StrayMessage, StreamChanged, StreamContents

__all__ = [
    "PAGE_SIZE",
    "Checkpoints",
    "PostgresReader",
    "RedisReader",
    "Sources",
    "StoredStream",
    "StrayMessage",
    "StreamChanged",
    "StreamContents",
    "StreamRow",
    "parse_contributions",
    "parse_counters",
    "parse_id",
    "select_page",
]


@dataclass(frozen=True)
class Sources:
    """The three servers."""

    postgres: PostgresReader
    stream: StreamContents
    redis: RedisReader
