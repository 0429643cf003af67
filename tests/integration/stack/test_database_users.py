"""The database users of the processes: what each may do, and which users processes refuse."""

import asyncio
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url, text

from devstack.processes import Process
from devstack.servers import Postgres
from devstack.stack_kinds import temporary_stack
from operations.housekeeping.command import keep_house
from operations.provision.postgres import ROLES, create_url, list_logins, provision
from runtime.database_user import refuse_privileged_user
from runtime.postgres import create_engine
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, NotAsked, StartError
from tests.support.harness.servers import TEMPLATE

RIGHTS = """
diptych_auditor | SELECT INSERT | audit_exports
diptych_auditor | SELECT | audit audit_checkpoints audit_removals audit_removed_rows audit_sealer
diptych_auditor | SELECT | audit_segments events operator_act_outcomes operator_acts reads refused_calls
diptych_auditor | SELECT | requests retention streams
diptych_housekeeping | SELECT INSERT DELETE | audit_removed_rows
diptych_housekeeping | SELECT DELETE | operator_act_outcomes operator_acts request_segments request_terms
diptych_housekeeping | SELECT DELETE | requests saga_steps
diptych_housekeeping | EXECUTE | drop_month() make_month()
diptych_housekeeping | SELECT INSERT | audit_removals saga_checkpoints
diptych_housekeeping | SELECT INSERT UPDATE | retention
diptych_housekeeping | SELECT | audit audit_checkpoints audit_exports audit_sealer audit_segments outbox
diptych_housekeeping | SELECT | reads refused_calls relay_state saga_beginnings saga_parked_streams sagas
diptych_housekeeping | SELECT UPDATE | housekeeping
diptych_housekeeping | UPDATE | saga_checkpoints.sequence sagas.archived_steps
diptych_operations | SELECT INSERT DELETE | request_segments request_terms
diptych_operations | SELECT INSERT | event_segments event_terms operator_act_outcomes operator_acts
diptych_operations | SELECT INSERT | projection_switches refused_calls saga_term_segments saga_terms
diptych_operations | SELECT INSERT | skipped_events
diptych_operations | SELECT | audit audit_checkpoints audit_exports audit_removals audit_removed_rows
diptych_operations | SELECT | audit_sealer audit_segments event_index event_index_progress events outbox
diptych_operations | SELECT | process_reports reads relay_state requests retention saga_beginnings
diptych_operations | SELECT | saga_callers saga_checkpoints saga_deadlines saga_leases saga_managers
diptych_operations | SELECT | saga_operator_actions saga_parked_streams saga_steps saga_timers sagas
diptych_operations | SELECT | snapshots streams subject_keys
diptych_operations | UPDATE | operator_acts.duration_us operator_acts.outcome projection_switches.outcome
diptych_operations | USAGE | refused_calls_number
diptych_process_manager | SELECT INSERT UPDATE DELETE | process_reports saga_beginnings saga_callers
diptych_process_manager | SELECT INSERT UPDATE DELETE | saga_checkpoints saga_deadlines saga_leases
diptych_process_manager | SELECT INSERT UPDATE DELETE | saga_managers saga_parked_streams saga_steps
diptych_process_manager | SELECT INSERT UPDATE DELETE | saga_timers sagas
diptych_process_manager | INSERT | refused_calls
diptych_process_manager | SELECT INSERT | saga_operator_actions
diptych_process_manager | SELECT | skipped_events
diptych_process_manager | USAGE | refused_calls_number
diptych_query | INSERT | reads
diptych_query | USAGE | reads_number
diptych_reader | SELECT | audit audit_checkpoints audit_exports audit_number audit_removals
diptych_reader | SELECT | audit_removed_rows audit_sealer audit_segments event_index event_index_progress
diptych_reader | SELECT | events operator_act_outcomes operator_acts outbox reads reads_number refused_calls
diptych_reader | SELECT | relay_state requests retention saga_beginnings saga_callers saga_checkpoints
diptych_reader | SELECT | saga_deadlines saga_operator_actions saga_parked_streams saga_steps saga_timers
diptych_reader | SELECT | sagas skipped_events snapshots streams subject_keys
diptych_relay | SELECT INSERT UPDATE DELETE | process_reports
diptych_relay | SELECT UPDATE DELETE | outbox
diptych_relay | SELECT | events skipped_events subject_keys
diptych_relay | SELECT UPDATE | relay_state
diptych_sealer | SELECT INSERT | audit_checkpoints audit_segments
diptych_sealer | SELECT | audit audit_number events operator_act_outcomes operator_acts reads reads_number
diptych_sealer | SELECT | refused_calls refused_calls_number relay_state
diptych_sealer | SELECT UPDATE | audit_sealer
diptych_service | SELECT INSERT UPDATE DELETE | process_reports snapshots
diptych_service | SELECT INSERT | audit event_index events outbox refused_calls requests subject_keys
diptych_service | SELECT INSERT UPDATE | event_index_progress streams
diptych_service | SELECT | relay_state retention
diptych_service | USAGE | audit_number refused_calls_number
"""
"""All that anybody but the owner may do: role, rights, and the tables, columns, sequences and functions."""
GRANTS = """
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege, object FROM (
  SELECT c.relname::text AS object, relowner AS owner, (aclexplode(relacl)).grantee,
    (aclexplode(relacl)).privilege_type AS privilege
  FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND NOT relispartition
  UNION ALL SELECT c.relname || '.' || attname, relowner, (aclexplode(attacl)).grantee,
    (aclexplode(attacl)).privilege_type
  FROM pg_class c JOIN pg_attribute ON attrelid = c.oid WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT proname || '()', proowner,
    (aclexplode(coalesce(proacl, acldefault('f', proowner)))).grantee, 'EXECUTE'
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
) held WHERE grantee <> owner
"""
MEMBERSHIPS = """
SELECT member::regrole::text, roleid::regrole::text, inherit_option, set_option, admin_option
FROM pg_auth_members WHERE member::regrole::text = ANY ($1)
"""
FORBIDDEN = (
    "SELECT count(*) FROM events",
    "SELECT count(*) FROM sagas",
    "INSERT INTO retention VALUES ('requests', now(), now())",
    "SELECT make_month('audit', '2020-01-01')",
    "SET ROLE diptych",
    "CREATE TABLE mine (a int)",
    "CREATE TEMP TABLE mine (a int)",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "SELECT * FROM pg_authid",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "SET session_replication_role = replica",
    "ALTER SYSTEM SET fsync = off",
    "ALTER TABLE events DISABLE TRIGGER refuse_change",
    "DROP TRIGGER refuse_change ON events",
)
"""Statements of a session that has given back the role of its process."""

_numbers = count(1)


@dataclass
class Database:
    """A migrated database with users of its own."""

    url: str
    folder: Path
    prefix: str
    urls: dict[str, str]


@pytest.fixture(scope="module")
async def database(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    name, folder = "with_users", tmp_path_factory.mktemp("users")
    await postgres.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    url, prefix = postgres.url_of(name), "diptych_test"
    yield Database(url, folder, prefix, await provision(url, folder, prefix=prefix))
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_every_role_has_the_rights_in_the_table(database: Database) -> None:
    expected = {
        (role, right, name)
        for role, rights, objects in (line.split(" | ") for line in RIGHTS.strip().splitlines())
        for right in rights.split()
        for name in objects.split()
    }
    connection = await asyncpg.connect(database.url)
    found = {tuple(row) for row in await connection.fetch(GRANTS)}
    names = [login.name for login in list_logins(database.folder, database.prefix)]
    memberships = await connection.fetch(MEMBERSHIPS, names)
    rows = await connection.fetch("SELECT * FROM pg_roles WHERE rolname = ANY ($1)", names)
    await connection.close()
    assert sorted(found - expected) == []
    assert sorted(expected - found) == []
    assert {tuple(row) for row in memberships} == {
        (f"{database.prefix}_{process}", role, False, True, False)
        for process, roles in ROLES.items()
        for role in roles
    }
    assert len(rows) == len(names)
    for row in rows:
        attributes = [name for name, value in row.items() if value is True]
        assert attributes == ["rolcanlogin"], row["rolname"]


async def test_a_session_that_leaves_its_role_may_do_nothing(database: Database) -> None:
    for process, url in database.urls.items():
        connection = await asyncpg.connect(url, server_settings={"role": ROLES[process][0]})
        assert await connection.fetchval("SELECT current_user") == ROLES[process][0]
        await connection.execute("SET ROLE NONE")
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        for other in {role for roles in ROLES.values() for role in roles} - set(ROLES[process]):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"SET ROLE {other}")
        await connection.close()


async def test_the_url_of_a_process_has_no_secret_of_the_administrator(database: Database) -> None:
    password = make_url(database.url).password
    assert password
    for process, url in database.urls.items():
        assert password not in url
        assert stat.S_IMODE((database.folder / f"{process}.pgpass").stat().st_mode) == 0o600
    (login, *_) = list_logins(database.folder)
    url = "postgresql://boss:secret@[::1]:5/d?sslmode=verify-full&sslrootcert=/ca&sslcert=/boss&sslkey=/k"
    expected = make_url(f"postgresql://{login.name}@[::1]:5/d?sslmode=verify-full&sslrootcert=/ca")
    assert make_url(create_url(url, login)) == expected.update_query_dict({"passfile": str(login.file)})


async def test_users_are_made_once_and_get_new_passwords_on_request(database: Database) -> None:
    url, folder, prefix = database.url, database.folder, database.prefix
    file = folder / "relay.pgpass"
    first = file.read_text()
    assert await provision(url, folder, prefix=prefix) == database.urls
    assert file.read_text() == first
    await provision(url, folder, prefix=prefix, rotate=True)
    assert file.read_text() != first
    await (await asyncpg.connect(database.urls["relay"])).close()
    old = first.strip().rpartition(":")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database.urls["relay"], password=old)
    file.unlink()
    with pytest.raises(StartError, match="has no file of the user diptych_test_relay"):
        await provision(url, folder, prefix=prefix)
    await provision(url, folder, prefix=prefix, replace_lost=True)
    await (await asyncpg.connect(database.urls["relay"])).close()


async def test_users_need_a_migrated_database_and_no_rights_of_their_own(
    postgres: Postgres, database: Database, tmp_path: Path
) -> None:
    for prefix in ("Upper", "a-b", "a b", "", "x" * 41):
        with pytest.raises(StartError, match="--prefix"):
            await provision(database.url, tmp_path, prefix=prefix)
    await postgres.execute("CREATE ROLE taken_relay LOGIN CREATEROLE")
    with pytest.raises(StartError, match="taken_relay has rights of its own"):
        await provision(database.url, tmp_path, prefix="taken")
    await postgres.execute("ALTER ROLE taken_relay NOCREATEROLE; ")
    await postgres.execute("GRANT pg_monitor TO taken_relay")
    with pytest.raises(NotAsked, match=r"DIPTYCH_DATABASE_URL: .*does not exist"):
        await provision(make_url(database.url).set(database="nowhere").render_as_string(False), tmp_path)
    urls = await provision(database.url, tmp_path, prefix="taken", replace_lost=True)
    engine = create_engine(urls["relay"])
    async with engine.connect() as connection:
        member = text("SELECT pg_has_role(session_user, 'pg_monitor', 'MEMBER')")
        assert not await connection.scalar(member)
    await engine.dispose()


async def test_an_owner_that_is_no_superuser_makes_users(postgres: Postgres, tmp_path: Path) -> None:
    roles = ", ".join(sorted({role for roles in ROLES.values() for role in roles}))
    await postgres.execute("CREATE ROLE landlord LOGIN CREATEROLE PASSWORD 'x'")
    await postgres.execute(f"GRANT {roles} TO landlord WITH ADMIN OPTION")
    await postgres.execute(f"CREATE DATABASE owned TEMPLATE {TEMPLATE} OWNER landlord STRATEGY file_copy")
    url = make_url(postgres.url_of("owned")).set(username="landlord", password="x")
    for rotate in (False, False, True):
        urls = await provision(url.render_as_string(False), tmp_path, prefix="owned", rotate=rotate)
    await (await asyncpg.connect(urls["relay"], server_settings={"role": "diptych_relay"})).close()
    await postgres.execute("ALTER ROLE landlord NOCREATEROLE")
    with pytest.raises(NotAsked, match=r"^DIPTYCH_DATABASE_URL: .*permission denied"):
        await provision(url.render_as_string(False), tmp_path, prefix="owned", rotate=True)
    await postgres.execute("DROP DATABASE owned WITH (FORCE)")


@pytest.mark.parametrize(
    ("rights", "error"),
    [
        ("CREATE ROLE {} LOGIN SUPERUSER", "is a superuser"),
        ("CREATE ROLE {} LOGIN CREATEROLE", "has CREATEROLE"),
        ("CREATE ROLE {} LOGIN BYPASSRLS", "has BYPASSRLS"),
        ("CREATE ROLE {} LOGIN REPLICATION", "has REPLICATION"),
        ("CREATE ROLE {} LOGIN NOINHERIT IN ROLE pg_write_all_data", "can become pg_write_all_data, which"),
        ("CREATE ROLE {} LOGIN IN ROLE pg_execute_server_program", "can become pg_execute_server_program"),
        ("CREATE ROLE {} LOGIN IN ROLE diptych", "can become diptych, which is a superuser"),
        ("CREATE ROLE {} LOGIN; ALTER TABLE events OWNER TO {}", "owns the tables"),
    ],
)
async def test_a_user_with_too_many_rights_is_refused(
    database_url: str, caplog: pytest.LogCaptureFixture, rights: str, error: str
) -> None:
    name = f"strong_{next(_numbers)}"
    administrator = await asyncpg.connect(database_url)
    await administrator.execute(rights.format(name, name))
    await administrator.execute(f"GRANT diptych_relay TO {name}; ALTER ROLE {name} PASSWORD 'x'")
    url = make_url(database_url).set(username=name, password="x").render_as_string(False)
    engine = create_engine(url, session={"role": "diptych_relay"})
    with pytest.raises(InvalidSetting, match=f"^DIPTYCH_DATABASE_URL: the user {name} {error}.*provision"):
        await refuse_privileged_user(engine, allowed=False)
    await refuse_privileged_user(engine, allowed=True)
    await engine.dispose()
    await administrator.close()


async def test_users_of_processes_are_not_refused(database: Database) -> None:
    for process, url in database.urls.items():
        engine = create_engine(url, session={"role": ROLES[process][0]})
        await refuse_privileged_user(engine, allowed=False)
        await engine.dispose()


@pytest.mark.parametrize("others", [0, pytest.param(1, marks=pytest.mark.long)])
async def test_processes_refuse_the_administrator_with_one_line(
    tmp_path: Path, database_url: str, nats_url: str, redis_url: str, others: int
) -> None:
    stack = temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        projectors=0,
        command_servers=others,
        query_servers=others,
        process_managers=others,
        operations_servers=others,
        environment={"DIPTYCH_ALLOW_PRIVILEGED_DATABASE_USER": "0", "DIPTYCH_LOG_LEVEL": "warning"},
    )

    async def start(process: Process) -> None:
        await process.child.start()
        assert await process.child.wait_ended() == 2, process.name
        *_, line = (tmp_path / f"{process.name}.log").read_text().splitlines()
        assert line.startswith(f"{process.name}: DIPTYCH_DATABASE_URL: the user diptych is a superuser")

    assert len(stack.processes) == 1 + 4 * others
    await asyncio.gather(*map(start, stack.processes))


async def test_housekeeping_refuses_the_administrator(database_url: str) -> None:
    settings = Settings(database_url=database_url, allow_privileged_database_user=False)
    for every in (None, timedelta(hours=1)):
        with pytest.raises(InvalidSetting, match="the user diptych is a superuser"):
            await keep_house(settings, every, False, lambda entry: None)
