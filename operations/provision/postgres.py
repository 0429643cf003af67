"""A database user for each process: it has nothing but the role that the process's sessions take.

Passwords are random, and made into verifiers here, so that PostgreSQL's log never has them. Each is in a file
of its own in the format of libpq's password files, which a process reads for every connection: a new one
counts without a restart.
"""

import re
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import pbkdf2_hmac, sha256
from hmac import digest
from pathlib import Path
from secrets import token_bytes, token_urlsafe
from urllib.parse import urlencode

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from command_server.postgres.schema import HOUSEKEEPING_ROLE, READER_ROLE, RELAY_ROLE, SERVICE_ROLE
from operations.processes import COMMAND_SERVER, OPERATIONS_SERVER, PROCESS_MANAGER, QUERY_SERVER, RELAY
from operations.provision.secret_files import make_folder, write_file
from operations.server_errors import UNREACHABLE, summarize
from operations_server.postgres.schema import AUDITOR_ROLE, SEALER_ROLE
from operations_server.postgres.schema import ROLE as OPERATIONS_ROLE
from process_manager.postgres.schema import ROLE as PROCESS_MANAGER_ROLE
from runtime.grpc.read_table import ROLE as QUERY_ROLE
from runtime.migrations import LOCK_KEY
from runtime.postgres import create_engine
from runtime.process.start_error import NotAsked, StartError

PREFIX = "diptych_login"
ITERATIONS = 4_096
"""PostgreSQL's own number. The passwords are random, so more of them would protect nothing."""
ROLES: Mapping[str, Sequence[str]] = {
    COMMAND_SERVER.name: (SERVICE_ROLE,),
    QUERY_SERVER.name: (QUERY_ROLE,),
    RELAY.name: (RELAY_ROLE,),
    PROCESS_MANAGER.name: (PROCESS_MANAGER_ROLE,),
    # It seals, and retries and aborts sagas.
    OPERATIONS_SERVER.name: (OPERATIONS_ROLE, SEALER_ROLE, PROCESS_MANAGER_ROLE),
    "housekeeping": (HOUSEKEEPING_ROLE,),
    "verify": (READER_ROLE,),
    "rehearse": (READER_ROLE,),
    "audit": (READER_ROLE, AUDITOR_ROLE),
}
"""The roles of each process that uses PostgreSQL."""

ATTRIBUTES = "LOGIN NOINHERIT"
OWN_OPTIONS = ("user", "password", "passfile", "sslcert", "sslkey")
"""Options of a database URL that belong to one user."""
FIND_MISSING = text("SELECT name FROM unnest(CAST(:roles AS text[])) name WHERE to_regrole(name) IS NULL")
FIND_LOGINS = text("""
SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication AS powerful
FROM pg_roles WHERE rolname = ANY (:names)
""")
FIND_MEMBERSHIPS = text("""
SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE member = CAST(CAST(:login AS text) AS regrole)
""")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Login:
    """The user of a process."""

    process: str
    name: str
    file: Path


async def provision(
    database_url: str, folder: Path, *, prefix: str = PREFIX, rotate: bool = False, replace_lost: bool = False
) -> dict[str, str]:
    """Make the users and their files as far as they are missing; return the database URL of each process.

    Args:
        database_url: `postgresql://…` of the owner of the tables, who may create roles.
        folder: for the files with the passwords.
        prefix: the names of the users begin with it. Users belong to the whole server, so each database of
            one server needs another prefix.
        rotate: whether all get new passwords.
        replace_lost: whether a user whose file is missing gets a new password.

    Raises:
        NotAsked: the database cannot be reached, or refuses.
        StartError: the database is not migrated, a user has other rights or its file is lost, or the folder
            cannot be written.
    """
    if not _NAME.fullmatch(prefix):
        raise StartError("--prefix: is not a name of at most 40 lower-case letters, digits and _")
    logins = list_logins(folder, prefix)
    engine = create_engine(database_url, pool_size=1)
    try:
        make_folder(folder)
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            existing = await _check(connection, logins)
            lost = [each for each in logins if each.name in existing and not each.file.exists()]
            if lost and not (rotate or replace_lost):
                raise StartError(
                    f"{folder}: has no file of the user {lost[0].name}; name the folder of the first run, or"
                    " give all users new passwords with --rotate"
                )
            renewed = [each for each in logins if rotate or each.name not in existing or each in lost]
            for login in logins:
                password = _write_new_file(login) if login in renewed else ""
                await _grant(connection, login, login.name in existing, password)
            await _revoke_from_public(connection)
    except UNREACHABLE as error:
        raise NotAsked(f"DIPTYCH_DATABASE_URL: cannot make the users: {summarize(error)}") from error
    finally:
        await engine.dispose()
    for login in renewed:
        _new_file(login).replace(login.file)
    return {login.process: create_url(database_url, login) for login in logins}


def list_logins(folder: Path, prefix: str = PREFIX) -> list[Login]:
    """Return the users of all processes."""
    return [Login(name, f"{prefix}_{name}", folder.absolute() / f"{name}.pgpass") for name in ROLES]


def create_url(database_url: str, login: Login | None) -> str:
    """Return the database URL of a process, whose password is in the user's file.

    Args:
        database_url: the administrator's; its own user, password and certificate are left out.
        login: None for a process that does not connect, but has the setting.
    """
    url = make_url(database_url)
    query = {name: value for name, value in url.query.items() if name not in OWN_OPTIONS}
    if login is not None:
        query["passfile"] = str(login.file)
    user = login.name if login else None
    address = URL.create(url.drivername, user, None, url.host, url.port, url.database).render_as_string()
    return f"{address}?{urlencode(query, doseq=True, safe='/')}" if query else address


async def _check(connection: AsyncConnection, logins: Sequence[Login]) -> Collection[str]:
    """Return the existing ones of these users.

    Raises:
        StartError: roles are missing, or a user has rights of its own.
    """
    roles = sorted({role for names in ROLES.values() for role in names})
    if missing := (await connection.scalars(FIND_MISSING, {"roles": roles})).all():
        raise StartError(f"the database has no role {missing[0]}: `diptych migrate` makes it")
    rows = (await connection.execute(FIND_LOGINS, {"names": [login.name for login in logins]})).all()
    if powerful := [row.rolname for row in rows if row.powerful]:
        raise StartError(f"the user {powerful[0]} has rights of its own: drop it, or choose another --prefix")
    return {row.rolname for row in rows}


async def _grant(connection: AsyncConnection, login: Login, exists: bool, password: str) -> None:
    """Create or alter a user, and leave it no membership but those of its process."""
    verb = "ALTER" if exists else "CREATE"
    secret = f" PASSWORD '{create_verifier(password)}'" if password else ""
    await connection.exec_driver_sql(f"{verb} ROLE {login.name} {ATTRIBUTES}{secret}")
    roles = ROLES[login.process]
    for other in set(await connection.scalars(FIND_MEMBERSHIPS, {"login": login.name})) - set(roles):
        await connection.exec_driver_sql(f'REVOKE "{other}" FROM {login.name}')
    options = "WITH INHERIT FALSE, SET TRUE, ADMIN FALSE"
    await connection.exec_driver_sql(f"GRANT {', '.join(roles)} TO {login.name} {options}")
    database = await connection.scalar(text("SELECT quote_ident(current_database())"))
    await connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database} TO {login.name}")


async def _revoke_from_public(connection: AsyncConnection) -> None:
    """Let nobody but the owner create tables, temporary ones included."""
    row = await connection.execute(
        text("SELECT quote_ident(current_database()), quote_ident(current_schema())")
    )
    database, schema = row.one()
    await connection.exec_driver_sql(f"REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC")
    await connection.exec_driver_sql(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC")


def create_verifier(password: str) -> str:
    """Return the verifier of a password for SCRAM-SHA-256, as PostgreSQL stores it."""
    salt = token_bytes(16)
    salted = pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored_key = sha256(digest(salted, b"Client Key", "sha256")).digest()
    server_key = digest(salted, b"Server Key", "sha256")
    encoded = [b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def format_password(name: str, password: str) -> str:
    """Return the content of a password file: of this user, at any server and database."""
    return f"*:*:*:{name}:{password}\n"


def _new_file(login: Login) -> Path:
    return login.file.with_name(f".{login.file.name}.new")


def _write_new_file(login: Login) -> str:
    """Write a file that takes its place once the password counts; return the new password."""
    password = token_urlsafe(32)
    write_file(_new_file(login), format_password(login.name, password))
    return password
