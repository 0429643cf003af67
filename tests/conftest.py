"""The fixtures that every test may ask for, and how tests are spread over processes."""

from pathlib import Path

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

SHARING = {"e2e", "faults"}
"""Folders whose tests share a stack, which takes long to start: one process runs them all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares servers: a folder with a stack, otherwise a file."""
    for item in items:
        folder = item.path.parent.name
        group = folder if folder in SHARING else str(item.path.relative_to(Path(__file__).parent))
        item.add_marker(pytest.mark.xdist_group(group))
