"""Events, requests, refused calls, audit and operators' acts, against those who own the tables."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

RECORD = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
VALUES ('a.b.1', 1, 't', '', '{}', now());
INSERT INTO requests (caller, request_id, type, hash, outcome, recorded_at)
VALUES ('alice', gen_random_uuid(), 't', '', 'ACCEPTED', now());
INSERT INTO audit (recorded_at, caller, request_id, type, outcome, stream, duration_us)
SELECT at, 'alice', gen_random_uuid(), 't', 'ACCEPTED', 'a.b.1', 1
FROM unnest(ARRAY[now(), '2020-01-15Z'::timestamptz]) at;
INSERT INTO refused_calls (recorded_at, method, reason, details, peer)
SELECT at, 'm', 'DENIED', '{}', 'p' FROM unnest(ARRAY[now(), '2020-01-15Z'::timestamptz]) at;
INSERT INTO operator_acts (subject, act, target, request, reason)
VALUES ('olga', 'RetrySaga', 's', '{}', 'r');
"""
CHANGED = {
    "events": "data",
    "requests": "outcome",
    "audit": "outcome",
    "refused_calls": "reason",
    "reads": "method",
    "operator_acts": "reason",
}
"""A column of each table."""
TABLES = f"""
SELECT relname::text, relname::text FROM pg_class WHERE oid = ANY ('{{{", ".join(CHANGED)}}}'::regclass[])
UNION ALL SELECT inhrelid::regclass::text, inhparent::regclass::text FROM pg_inherits
WHERE inhparent IN ('audit'::regclass, 'refused_calls'::regclass, 'reads'::regclass)
"""
REFUSED = "is refused: its rows are a record"


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The owner of all tables, a superuser."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(RECORD)
    yield connection
    await connection.close()


async def test_the_owner_changes_no_record(owner: "asyncpg.Connection[Any]") -> None:
    tables = await owner.fetch(TABLES)
    assert len(tables) >= 6 + 3 * 4, "with the default partitions and those of three months"
    for table, parent in tables:
        column = CHANGED[parent]
        for change in (
            f"UPDATE {table} SET {column} = NULL",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=REFUSED):
                await owner.execute(change)


async def test_an_act_is_completed_once(owner: "asyncpg.Connection[Any]") -> None:
    for other in ("subject = 'bob'", "reason = 'none'", "recorded_at = '2020-01-01Z'", "request = '3'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=REFUSED):
            await owner.execute(f"UPDATE operator_acts SET outcome = 'DONE', {other}")
    await owner.execute("UPDATE operator_acts SET outcome = 'SAGA_UNKNOWN', duration_us = 3")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=REFUSED):
        await owner.execute("UPDATE operator_acts SET outcome = 'DONE'")


async def test_housekeeping_deletes_and_moves_old_rows(
    owner: "asyncpg.Connection[Any]",
) -> None:
    await owner.execute("SET ROLE diptych_housekeeping")
    assert await owner.execute("DELETE FROM requests") == "DELETE 1"
    assert await owner.execute("DELETE FROM operator_acts") == "DELETE 1"
    assert await owner.fetchval("SELECT make_month('audit', '2020-01-01')")
    assert await owner.fetchval("SELECT make_month('refused_calls', '2020-01-01')")
    await owner.execute("RESET ROLE")
    for table in ("audit_2020_01", "refused_calls_2020_01"):
        assert await owner.fetchval(f"SELECT count(*) FROM {table}") == 1
        for name in (table, f"{table[:-8]}_default"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=REFUSED):
                await owner.execute(f"DELETE FROM {name}")
    await owner.execute("SET ROLE diptych_housekeeping")
    assert await owner.fetchval("SELECT drop_month('audit', '2020-01-01')") == 1


async def test_no_function_of_the_owner_uses_a_table_of_its_caller(owner: "asyncpg.Connection[Any]") -> None:
    """A trigger on such a table would run as the owner, for whoever may call the function."""
    await owner.execute("CREATE TABLE stolen (by text); GRANT INSERT ON stolen TO PUBLIC")
    await owner.execute("SET ROLE diptych_housekeeping")
    await owner.execute("CREATE TEMP TABLE audit_default (LIKE audit)")
    await owner.execute("INSERT INTO pg_temp.audit_default SELECT * FROM audit")
    await owner.execute("UPDATE pg_temp.audit_default SET recorded_at = '2020-02-15Z'")
    await owner.execute(
        "CREATE FUNCTION pg_temp.steal() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO stolen VALUES (current_user); RETURN OLD; END'"
    )
    for name in ("refuse_change", "steal"):
        await owner.execute(
            f"CREATE TRIGGER {name} BEFORE DELETE ON pg_temp.audit_default"
            " FOR EACH ROW EXECUTE FUNCTION pg_temp.steal()"
        )
    assert await owner.fetchval("SELECT make_month('audit', '2020-02-01')")
    await owner.execute("RESET ROLE")
    assert await owner.fetch("SELECT * FROM stolen") == []
    unsafe = """
    SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
      AND NOT coalesce(array_to_string(proconfig, ' ') ~ 'search_path=public, pg_temp$', false)
    """
    assert await owner.fetch(unsafe) == []
