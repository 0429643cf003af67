"""Real servers for tests: one of each per worker, started by the first test that needs it.

`database_url`, `nats_url` and `redis_url` give a test an empty database, JetStream or Redis to itself on the
shared servers. A test that kills, freezes or restarts a server takes one of its own: `own_postgres`,
`own_nats`, `own_redis`. They start in about a second, listen on free ports and are gone afterwards.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import nats
import pytest
from redis.asyncio import Redis

from devstack.servers import Nats, Postgres, Valkey
from operations.migrate import upgrade

TEMPLATE = "migrated"
MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30

_numbers = count(1)


def forget_settings() -> None:
    """Remove the settings of the developer's environment, and let processes use the tests' superuser."""
    for name in [name for name in os.environ if name.startswith(("DIPTYCH_", "OTEL_"))]:
        if name != "DIPTYCH_GRPC_SERVER":  # so that all tests can run on either server
            del os.environ[name]
    os.environ["DIPTYCH_ALLOW_PRIVILEGED_DATABASE_USER"] = "1"


def use_memory() -> None:
    """Let pytest make temporary folders in memory: the servers' files keep a disk, and the suite, busy.

    A killed server loses nothing of a memory file system, as with a disk. A run needs up to 2 GiB, so where
    memory is short it stays on disk.
    """
    if MEMORY.is_mount() and min(_available_memory(), shutil.disk_usage(MEMORY).free) > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def _available_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kibibytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kibibytes) * 2**10


async def _migrated(folder: Path) -> Postgres:
    """Start PostgreSQL with a migrated template database; a copy takes a twentieth of a migration's time."""
    server = Postgres(folder, durable=False)
    await server.start()
    await server.execute(f"CREATE DATABASE {TEMPLATE}")
    await asyncio.to_thread(upgrade, server.url_of(TEMPLATE))
    return server


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    server = await _migrated(tmp_path_factory.mktemp("postgres"))
    yield server
    await server.stop()


@pytest.fixture
async def database_url(postgres: Postgres) -> AsyncIterator[str]:
    """A migrated database for one test, with its own incarnation."""
    name = f"test_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    await postgres.execute("UPDATE relay_state SET incarnation = gen_random_uuid()", name)
    yield postgres.url_of(name)
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A PostgreSQL to kill; its database at `url_of(TEMPLATE)` is migrated."""
    server = await _migrated(tmp_path / "postgres")
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    async with Nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def nats_url(nats_server: Nats) -> str:
    """A JetStream without streams."""
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream()
    for stream in await jetstream.streams_info():
        await jetstream.delete_stream(stream.config.name or "")
    await client.close()
    return nats_server.url


@pytest.fixture
async def own_nats(tmp_path: Path) -> AsyncIterator[Nats]:
    """A NATS to kill."""
    async with Nats(tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    """Valkey, as Redis."""
    async with Valkey(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def redis_url(redis_server: Valkey) -> str:
    """A Redis without keys and scripts."""
    async with Redis.from_url(redis_server.url) as redis:
        await redis.flushall()
        await redis.script_flush()
    return redis_server.url


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A Redis to kill; it keeps its data."""
    async with Valkey(tmp_path / "redis") as server:
        yield server
