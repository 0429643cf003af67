"""A database of an earlier version comes to the newest tables with all its sagas and checkpoints."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from devstack.servers import Postgres
from process_manager.postgres.due_work import Feed
from process_manager.postgres.schema import LATER_METADATA, METADATA
from process_manager.postgres.store import SagaStore
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.saga_reader import SagaReader
from runtime.postgres import create_engine

ROWS = """
INSERT INTO sagas VALUES ('fulfilment.fulfilment', 'o-1', 3, 2, '{}', 'PREPARING', false, '', 'KeyError',
  'KeyError', 'c-1', NULL, now(), now(), NULL);
INSERT INTO saga_steps VALUES ('fulfilment.fulfilment', 'o-1', 'assess', 1, 3, 1, '/a.v1.QueryService/B', '',
  gen_random_uuid(), now(), now(), 0, NULL, NULL, NULL);
INSERT INTO sagas VALUES ('inventory.reservation_deadline', 'r-1', 3, 1, '{"id": "r-1"}', 'WATCHING',
  false, '', '', '', 'c-1', NULL, now(), now(), NULL);
INSERT INTO saga_timers VALUES ('inventory.reservation_deadline', 'r-1', 'deadline', 3, now());
INSERT INTO saga_checkpoints VALUES ('fulfilment.fulfilment', 3, 'epoch', 17), ('toys.toy', 0, 'epoch', 5);
"""
_numbers = count(1)


async def upgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "process_manager.postgres:migrations")
    config.attributes["database_url"] = url
    await asyncio.to_thread(command.upgrade, config, revision)


@pytest.fixture
async def empty_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database without tables."""
    name = f"empty_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name}")
    yield postgres.url_of(name)
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_sagas_and_checkpoints_of_an_earlier_version_are_kept(empty_url: str) -> None:
    await upgrade(empty_url, "sagas_1")
    connection = await asyncpg.connect(empty_url)
    await connection.execute(ROWS)
    await connection.close()
    await upgrade(empty_url, "head")
    store = SagaStore(empty_url)
    try:
        details = await SagaReader(store.engine).find("fulfilment.fulfilment", "o-1")
        assert details is not None
        assert (details.row.version, details.row.failed_input, details.row.other_streams) == (
            2,
            "KeyError",
            {},
        )
        assert [step.step for step in details.steps] == ["assess"]
        feed = Feed("fulfilment.fulfilment", "ordering.order", 3)
        assert await FeedReader(store.engine).read_checkpoints([feed.saga]) == {feed: ("epoch", 17)}
        for saga in ("fulfilment.fulfilment", "toys.toy"):
            assert await store.read_beginning(saga) is None
        (timer,) = await store.read_due_timers(["inventory.reservation_deadline"], [3], 10)
        assert (timer.id, timer.name) == ("r-1", "deadline")
    finally:
        await store.close()


async def test_the_migrations_lead_to_the_tables_of_the_schema(empty_url: str) -> None:
    await upgrade(empty_url, "head")

    def compare(connection: Connection) -> list[object]:
        options = {"compare_type": True, "include_object": _is_of_the_sagas}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, [METADATA, LATER_METADATA]))  # type: ignore[arg-type]

    engine = create_engine(empty_url)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(compare) == []
    finally:
        await engine.dispose()


def _is_of_the_sagas(_object: object, name: str | None, *_: object) -> bool:
    return name not in ("process_manager_version", "process_reports", "skipped_events")
