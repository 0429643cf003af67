"""The system that faults are planted in: built once, restored for every test."""

from collections.abc import AsyncIterator
from itertools import count

import pytest

from devstack.servers import Nats, Postgres, Valkey
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.verified_system import Origin, System, build_origin, clear_servers, restore_system
from tests.support.ledger.installation import installed

ORIGIN = "verify_origin"
_numbers = count(1)


@pytest.fixture(scope="session")
async def origin(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, nats_server: Nats, redis_server: Valkey
) -> Origin:
    await clear_servers(nats_server, redis_server)
    await postgres.execute(f"CREATE DATABASE {ORIGIN} TEMPLATE {TEMPLATE}")
    await postgres.execute("UPDATE relay_state SET incarnation = gen_random_uuid()", ORIGIN)
    folder = tmp_path_factory.mktemp("origin")
    with installed():
        return await build_origin(folder, postgres.url_of(ORIGIN), nats_server.url, redis_server.url)


@pytest.fixture
async def system(origin: Origin, postgres: Postgres, nats_url: str, redis_url: str) -> AsyncIterator[System]:
    name = f"verify_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name} TEMPLATE {ORIGIN}")
    with installed():
        async with restore_system(origin, postgres.url_of(name), nats_url, redis_url) as system:
            yield system
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
