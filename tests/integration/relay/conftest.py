"""A writer of events, an observer of their stream, and a reader, for tests of the relay and of readings."""

from collections.abc import AsyncIterator

import pytest

from devstack.servers import Nats
from runtime.jetstream import Connection, connect
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.keys import get_ring


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Writer]:
    async with feed.writer(database_url) as writer:
        yield writer


@pytest.fixture
async def observer(own_nats: Nats) -> AsyncIterator[Connection]:
    async with await connect(own_nats.url, "observer", get_ring) as connection:
        await connection.wait_until_connected()
        yield connection


@pytest.fixture
async def connection(own_nats: Nats) -> AsyncIterator[Connection]:
    async with await connect(own_nats.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        yield connection
