"""The database user of a process: with more rights than its role has, it could change the record.

A session acts in a role, but whoever controls the process can have the rights of its user back (`SET ROLE
NONE`). So a process refuses a user that owns the tables, or could otherwise do more than all roles of the
processes. `diptych provision postgres` makes users that have nothing but their role.
"""

import asyncio
from contextlib import suppress

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.postgres import autocommit
from runtime.postgres_connection import NAME
from runtime.process import logs
from runtime.process.lifecycle import Lifecycle
from runtime.process.start_error import InvalidSetting

START_WAIT = 2.0
"""Seconds that a start waits for PostgreSQL's answer. A process also starts without PostgreSQL."""
RETRY_INTERVAL = 1.0
POWERFUL_ROLES = (
    *("pg_read_all_data", "pg_write_all_data", "pg_read_server_files", "pg_write_server_files"),
    *("pg_execute_server_program", "pg_create_subscription", "pg_maintain", "pg_signal_backend"),
)
FIND_EXCESS = text("""
SELECT rolname = session_user AS is_user, session_user AS name, rolname, excess FROM (
  SELECT r.rolname, CASE
    WHEN r.rolsuper THEN 'is a superuser'
    WHEN r.oid IN (SELECT relowner FROM pg_class WHERE oid IN (to_regclass('events'), to_regclass('sagas')))
      THEN 'owns the tables'
    WHEN r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database())
      THEN 'owns the database'
    WHEN r.rolcreaterole THEN 'has CREATEROLE'
    WHEN r.rolbypassrls THEN 'has BYPASSRLS'
    WHEN r.rolreplication THEN 'has REPLICATION'
    WHEN CAST(r.rolname AS text) = ANY (CAST(:powerful AS text[])) THEN 'has more rights than a process needs'
  END AS excess
  FROM pg_roles r WHERE pg_has_role(session_user, r.oid, 'MEMBER')
) roles WHERE excess IS NOT NULL ORDER BY rolname <> session_user, rolname LIMIT 1
""")
UNANSWERED = (SQLAlchemyError, OSError, TimeoutError)
"""What a connection may raise; the health of the process reports it."""
ADVICE = (
    "`diptych provision postgres` makes users without;"
    " DIPTYCH_ALLOW_PRIVILEGED_DATABASE_USER=1 permits it, for development"
)

log = logs.get_logger(__name__)


async def refuse_privileged_user(engine: AsyncEngine, *, allowed: bool) -> None:
    """Check the user of a database URL, if PostgreSQL answers.

    Args:
        engine: of the process.
        allowed: whether a user with too many rights is logged instead of refused.

    Raises:
        InvalidSetting: the user has too many rights.
        Exception: PostgreSQL does not answer.
    """
    excess = await find_excess(engine)
    if excess and not allowed:
        raise InvalidSetting(f"{NAME}: {excess}; {ADVICE}")
    if excess:
        log.warning("Database user has too many rights", error=excess)


async def find_excess(engine: AsyncEngine) -> str:
    """Return what the user of a database URL has too many rights for; empty if it has none."""
    async with autocommit(engine).connect() as connection:
        row = (await connection.execute(FIND_EXCESS, {"powerful": list(POWERFUL_ROLES)})).one_or_none()
    if row is None:
        return ""
    return f"the user {row.name} {'' if row.is_user else f'can become {row.rolname}, which '}{row.excess}"


async def guard_start(lifecycle: Lifecycle, engine: AsyncEngine) -> None:
    """Check the user before the process serves; if PostgreSQL does not answer, as soon as it does.

    Raises:
        InvalidSetting: the user has too many rights; the process ends with this error also later.
    """
    allowed = lifecycle.settings.allow_privileged_database_user
    try:
        async with asyncio.timeout(START_WAIT):
            await refuse_privileged_user(engine, allowed=allowed)
    except UNANSWERED:
        lifecycle.spawn(_check_until_answered(engine, allowed), "database user")


async def _check_until_answered(engine: AsyncEngine, allowed: bool) -> None:
    while True:
        await asyncio.sleep(RETRY_INTERVAL)
        with suppress(*UNANSWERED):
            return await refuse_privileged_user(engine, allowed=allowed)
