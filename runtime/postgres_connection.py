"""Connections to PostgreSQL: the options of the database URL, and errors that name the setting.

A pooler before PostgreSQL, such as pgbouncer in transaction mode, may refuse or drop the parameters of a
session: its role, and the timeouts that bound the locks of a stopped process. So each new connection is
checked, and one without its parameters is refused.
"""

import ssl
from collections.abc import Mapping
from typing import Any

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from runtime.process.start_error import InvalidSetting
from runtime.tls.store_context import StoreContext

NAME = "DIPTYCH_DATABASE_URL"
SYSTEM_ROOTS = "system"
"""The value of `sslrootcert` for the authorities of the machine."""
CONNECT_TIMEOUT = 5.0
"""Seconds until an attempt to connect fails."""
FIND_DROPPED = """
SELECT name FROM unnest($1::text[], $2::text[]) AS parameters (name, value)
WHERE current_setting(name) IS DISTINCT FROM set_config(name, value, true)
"""
POOLER = (
    "it leads to a pooler that {} the session parameters {}; connect to PostgreSQL itself, since the"
    " processes have pools of their own"
)
REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,  # an unknown user or a wrong password
    asyncpg.InvalidCatalogNameError,  # an unknown database
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidParameterValueError,  # a role that `diptych migrate` creates
    asyncpg.InterfaceError,  # contradictory options
)
FOREIGN_STATEMENTS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""Raised where a pooler gives the statements of one client to another one's connection."""


class DatabaseRefused(ConnectionError):
    """PostgreSQL, or a pooler before it, does not take connections with this database URL."""


def parse_url(database_url: str) -> tuple[URL, dict[str, Any]]:
    """Return the URL for SQLAlchemy, and asyncpg's arguments for the options that are ours.

    Raises:
        InvalidSetting: the URL is malformed, or a certificate cannot be read.
    """
    try:
        url = make_url(database_url).set(drivername="postgresql+asyncpg")
    except (ArgumentError, ValueError) as error:
        raise InvalidSetting(f"{NAME}: is not a PostgreSQL URL") from error
    options = {name: value for name, value in url.query.items() if isinstance(value, str)}
    arguments: dict[str, Any] = {}
    if (mode := _choose_ssl(options)) is not None:
        arguments["ssl"] = mode
    names = ("sslmode", "sslrootcert", "sslcert", "sslkey", "application_name")
    return url.difference_update_query(names), arguments


def _choose_ssl(options: Mapping[str, str]) -> str | StoreContext | None:
    """Return asyncpg's argument for libpq's options; None for its default, which takes TLS where it can."""
    mode, root = options.get("sslmode"), options.get("sslrootcert")
    files = [options[name] for name in ("sslrootcert", "sslcert", "sslkey") if name in options]
    if root == SYSTEM_ROOTS:
        root = None
        files.remove(SYSTEM_ROOTS)
    verifies = mode in ("verify-ca", "verify-full") or (mode == "require" and root)
    if mode == "disable" or not (verifies or root or "sslcert" in options):
        return mode

    def create() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=root)
        context.check_hostname = mode == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE
        if "sslcert" in options:
            context.load_cert_chain(options["sslcert"], options.get("sslkey"))
        return context

    try:
        return StoreContext(NAME, files, create)
    except OSError as error:
        raise InvalidSetting(f"{NAME}: cannot use sslrootcert, sslcert or sslkey: {error}") from error


async def connect(*, server_settings: Mapping[str, str], **arguments: Any) -> "asyncpg.Connection[Any]":
    """Return a connection whose session has these parameters.

    Args:
        server_settings: the parameters.
        arguments: of asyncpg.

    Raises:
        DatabaseRefused: PostgreSQL does not take such connections, or a pooler drops the parameters.
    """
    names = ", ".join(server_settings)
    if isinstance(context := arguments.get("ssl"), StoreContext):
        arguments["ssl"] = context.get()
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            server_settings=dict(server_settings), **arguments
        )
    except asyncpg.ProtocolViolationError as error:
        text = POOLER.format("refuses", names) if "startup parameter" in str(error) else str(error)
        raise DatabaseRefused(f"{NAME}: {text}") from error
    except REFUSALS as error:
        raise DatabaseRefused(f"{NAME}: {error}") from error
    if not server_settings:
        return connection
    try:
        dropped = await connection.fetch(FIND_DROPPED, list(server_settings), list(server_settings.values()))
        if dropped:
            raise DatabaseRefused(f"{NAME}: {POOLER.format('drops', ', '.join(row[0] for row in dropped))}")
    except FOREIGN_STATEMENTS as error:
        connection.terminate()
        raise DatabaseRefused(f"{NAME}: {POOLER.format('does not keep', names)}") from error
    except BaseException:
        connection.terminate()
        raise
    return connection
