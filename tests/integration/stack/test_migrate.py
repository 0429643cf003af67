"""Migrations, and databases that this version cannot migrate."""

import pytest

from devstack.servers import Postgres
from operations.migrate import migrate
from runtime.process.start_error import StartError


async def test_a_migrated_database_stays_as_it_is(database_url: str) -> None:
    await migrate(database_url)


@pytest.mark.parametrize("table", ["alembic_version", "process_manager_version"])
async def test_an_unknown_revision_is_one_line_that_names_the_way_out(
    postgres: Postgres, database_url: str, table: str
) -> None:
    await postgres.execute(f"UPDATE {table} SET version_num = '0001'", database_url.rpartition("/")[2])
    with pytest.raises(StartError) as caught:
        await migrate(database_url)
    assert "DIPTYCH_DATABASE_URL" in str(caught.value)
    assert "make clean-data" in str(caught.value)
    assert "\n" not in str(caught.value)
