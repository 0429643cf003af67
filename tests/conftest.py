"""Real servers for every test that asks for one: started once, each test on empty ground of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import nats
import pytest
import redis.asyncio as redis
from nats.js.errors import NotFoundError

from command_server.adapters.migrations import upgrade
from operations.servers import Nats, Postgres, Valkey, free_port
from runtime.streams import JETSTREAM

TEMPLATE = "template_diptych"


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """A PostgreSQL server that holds a migrated database to copy."""
    server = Postgres(tmp_path_factory.mktemp("postgres"), free_port(), durable=False)
    await server.start()
    await server.create_database(TEMPLATE)
    await asyncio.to_thread(upgrade, server.url(TEMPLATE))
    yield server
    await server.stop()


@pytest.fixture
async def database_url(postgres: Postgres) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{uuid4().hex}"
    await postgres.create_database(name, template=TEMPLATE)
    yield postgres.url(name)
    await postgres.run("dropdb", "--force", name)


@pytest.fixture(scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    """A NATS server with JetStream."""
    server = Nats(tmp_path_factory.mktemp("nats"), free_port())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def nats_url(nats_server: Nats) -> str:
    """A NATS server without the stream of events."""
    client = await nats.connect(nats_server.url)
    with suppress(NotFoundError):
        await client.jetstream().delete_stream(JETSTREAM)
    await client.close()
    return nats_server.url


@pytest.fixture(scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    """A Valkey server, which speaks Redis's protocol."""
    server = Valkey(tmp_path_factory.mktemp("valkey"), free_port(), durable=False)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    """An empty Redis."""
    async with redis.from_url(valkey.url) as client:
        await client.flushall()
    return valkey.url
