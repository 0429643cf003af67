"""The fixtures that every test may ask for, and how tests are spread over processes."""

from typing import Any

import pytest

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
from tests.support.spreading import Spread, rank

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


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:
    """Spread the tests as their servers want it."""
    config.option.loadscopereorder = False
    return Spread(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest where tests run in several processes, so that these end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))
