"""An operations server as a process, on the worker's servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from devstack.servers import Nats, Postgres, Valkey
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.caller import Caller
from tests.support.harness.changed_record import ALLOW_CHANGES
from tests.support.harness.servers import TEMPLATE

EMPTY = f"""
{ALLOW_CHANGES};
TRUNCATE events, audit, event_segments, event_terms, request_segments, request_terms RESTART IDENTITY
"""
NEW_INCARNATION = "UPDATE relay_state SET incarnation = gen_random_uuid()"  # as `diptych restored` does


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Stack]:
    stack = temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        command_servers=0,
        relays=0,
        projectors=0,
        query_servers=0,
        operations_servers=1,
    )
    async with stack:
        yield stack


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Caller]:
    operator = Caller(stack, "operations.read", "operations.act")
    yield operator
    await operator.close()


@pytest.fixture
async def confidant(stack: Stack) -> AsyncIterator[Caller]:
    """An operator who may see personal data."""
    confidant = Caller(stack, "operations.read", "operations.personal")
    yield confidant
    await confidant.close()


@pytest.fixture(scope="module")
async def shared_stack(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, nats_server: Nats, redis_server: Valkey
) -> AsyncIterator[Stack]:
    """One operations server for a module's tests, since it takes longer to start than most of them."""
    await postgres.execute(f"CREATE DATABASE records TEMPLATE {TEMPLATE}")
    async with temporary_stack(
        tmp_path_factory.mktemp("records"),
        database_url=postgres.url_of("records"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        command_servers=0,
        relays=0,
        projectors=0,
        query_servers=0,
        operations_servers=1,
    ) as stack:
        yield stack
    await postgres.execute("DROP DATABASE records WITH (FORCE)")


@pytest.fixture
async def database(shared_stack: Stack) -> AsyncIterator[Any]:
    """A connection to the shared stack's database, without records."""
    connection = await asyncpg.connect(shared_stack.settings.database_url)
    await connection.execute(EMPTY)
    await connection.execute(NEW_INCARNATION)
    yield connection
    await connection.close()


@pytest.fixture
async def operator_of_shared(shared_stack: Stack) -> AsyncIterator[Caller]:
    operator = Caller(shared_stack, "operations.read")
    yield operator
    await operator.close()
