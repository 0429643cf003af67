"""A database of the previous release comes to an audit in partitions with all its rows."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

from command_server.kernel.outcomes import Accepted
from command_server.postgres.event_store import PostgresEventStore
from devstack.servers import Postgres

PREVIOUS_TABLES = """
DROP TABLE IF EXISTS requests, audit, refused_calls;
DROP SEQUENCE IF EXISTS audit_number, refused_calls_number;
CREATE TABLE requests (
  caller text, request_id uuid, type text NOT NULL, hash bytea NOT NULL, outcome text NOT NULL,
  rejection json, receipt json, stream text NOT NULL, on_behalf_of text, correlation_id text NOT NULL,
  causation_id text, traceparent text, duration_us integer NOT NULL, recorded_at timestamptz NOT NULL,
  PRIMARY KEY (caller, request_id)
);
CREATE TABLE refused_calls (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, method text NOT NULL, reason text NOT NULL,
  caller text, details json NOT NULL, peer text NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON requests, refused_calls TO diptych_service;
"""
INSERT_REQUEST = """
INSERT INTO requests (caller, request_id, type, hash, outcome, receipt, stream, correlation_id, duration_us,
  recorded_at)
VALUES ('alice', $1, 't.Do', '#', 'ACCEPTED', '{"a.b.1": 1}', 'a.b.1', $2, 7, now() - $3 * interval '1 day')
"""
INSERT_REFUSED_CALL = """
INSERT INTO refused_calls (method, reason, details, peer) VALUES ('/a.B/C', 'SCOPE_MISSING', '{}', 'p')
"""
_numbers = count(1)


async def upgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "command_server.postgres:migrations")
    config.attributes["database_url"] = url
    await asyncio.to_thread(command.upgrade, config, revision)


@pytest.fixture
async def previous_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database of the previous release."""
    name = f"previous_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name}")
    await upgrade(postgres.url_of(name), "write_model_1")
    await postgres.execute(PREVIOUS_TABLES, name)
    yield postgres.url_of(name)
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def previous(previous_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(previous_url)
    yield connection
    await connection.close()


async def test_rows_of_the_previous_release_are_carried_over(
    previous_url: str, previous: "asyncpg.Connection[Any]"
) -> None:
    old, new = uuid4(), uuid4()
    await previous.execute(INSERT_REQUEST, old, "conversation", 400)
    await previous.execute(INSERT_REQUEST, new, str(new), 0)
    await previous.execute(INSERT_REFUSED_CALL)
    await upgrade(previous_url, "head")
    rows = await previous.fetch("SELECT request_id, stream, correlation_id FROM audit ORDER BY recorded_at")
    assert [tuple(row) for row in rows] == [(old, "a.b.1", "conversation"), (new, "a.b.1", None)]
    assert await previous.fetchval("SELECT count(*) FROM audit_default") == 0
    assert await previous.fetchval("SELECT method FROM refused_calls") == "/a.B/C"
    store = PostgresEventStore(previous_url)
    async with store.begin() as transaction:
        _, lookup = await transaction.lock_and_find([], [("alice", str(old))])
    (stored,) = lookup.requests.values()
    await store.close()
    assert isinstance(stored.outcome, Accepted)


async def test_servers_of_the_previous_release_go_on_after_the_migration(
    previous_url: str, previous: "asyncpg.Connection[Any]"
) -> None:
    await upgrade(previous_url, "head")
    await previous.execute("SET ROLE diptych_service")
    request_id = uuid4()
    await previous.execute(INSERT_REQUEST, request_id, "conversation", 0)
    await previous.execute(INSERT_REFUSED_CALL)
    assert await previous.fetchval("SELECT request_id FROM audit") == request_id
    assert await previous.fetchval("SELECT count(*) FROM refused_calls") == 1
