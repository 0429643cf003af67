"""What an error of PostgreSQL means for the commands of a batch.

Only where PostgreSQL says that a statement or its data is wrong is it a bug of ours (INTERNAL). Everything
else is the state of the database, which passes or which an operator mends: commands may be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from errno import EMFILE, ENFILE

import asyncpg
from sqlalchemy import exc

from command_server.kernel.ports import (
    StoreConflict,
    StoreFailed,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)

TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"


@dataclass(frozen=True, slots=True)
class _Meaning:
    failure: type[Exception]
    discards_connections: bool = False
    """Whether the pooled connections may be dead, or hold statements that PostgreSQL no longer knows."""
    cause: str = ""


_CONFLICT = _Meaning(StoreConflict)
_STALE = _Meaning(StoreConflict, discards_connections=True)
_LOST = _Meaning(StoreUnavailable, discards_connections=True)
_SCHEMA_CHANGING = _Meaning(StoreUnavailable, discards_connections=True, cause="SCHEMA_CHANGING")
_FAILED = _Meaning(StoreFailed, cause="DATABASE_FAILED")

_MEANINGS: Mapping[str, _Meaning] = {
    "08": _LOST,
    "0B": _LOST,  # invalid transaction initiation
    "23505": _CONFLICT,  # another writer took a new key
    "24": _LOST,  # cursor state
    "25": _LOST,  # transaction state: time-outs, and a standby after a failover
    "26": _STALE,  # a prepared statement that the server does not know
    "28": _LOST,  # a role that may not log in
    "2D": _LOST,  # invalid transaction termination
    "34": _LOST,  # cursor name
    "3B": _LOST,  # savepoint
    "3D": _LOST,  # no such database
    "3F": _SCHEMA_CHANGING,  # no such schema
    "40": _CONFLICT,  # serialisation, deadlock
    "40003": _LOST,  # statement completion unknown
    "42501": _SCHEMA_CHANGING,  # no permission: granted by a migration
    "42703": _SCHEMA_CHANGING,  # no such column
    "42704": _SCHEMA_CHANGING,  # no such object
    "42883": _SCHEMA_CHANGING,  # no such function
    "42P01": _SCHEMA_CHANGING,  # no such table
    "53": _Meaning(StoreFull),  # disk, memory
    "53300": _Meaning(StoreUnavailable, cause=TOO_MANY_CONNECTIONS),
    "55": _Meaning(StoreUnavailable),  # objects that somebody changes
    "55P03": _Meaning(StoreLocked),
    "57": _LOST,  # the server stops, or somebody ends the statement
    "58": _FAILED,  # input and output
    "72": _Meaning(StoreUnavailable),  # snapshot too old
    "F0": _FAILED,  # configuration file
    "XX": _FAILED,  # damaged data, internal errors
}
"""By SQLSTATE, or by its class; the longer key counts."""

_WITHOUT_SQLSTATE = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    exc.DBAPIError,
    exc.TimeoutError,  # no connection became free
    OSError,
    TimeoutError,
)
"""Errors of the connection, or of the attempt to make one."""


def discards_connections(error: BaseException) -> bool:
    """Return whether the connection, or the whole pool after an `Exception`, should be replaced."""
    if not isinstance(error, Exception):  # the exchange that a cancellation ended may still take effect
        return True
    meaning = _find_meaning(error)
    return meaning is not None and meaning.discards_connections


def translate(error: BaseException) -> Exception | None:
    """Return the error of the port that an error of the driver means; None for a bug of ours."""
    meaning = _find_meaning(error)
    if meaning is None:
        return None
    if issubclass(meaning.failure, StoreUnavailable | StoreFailed):
        return meaning.failure(str(error), meaning.cause or _find_cause(error))
    return meaning.failure(str(error))


def _find_meaning(error: BaseException) -> _Meaning | None:
    error = _unwrap(error)
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # 0A000, as are unsupported features
        return _STALE
    if state := getattr(error, "sqlstate", None):
        return _MEANINGS.get(state) or _MEANINGS.get(state[:2])
    return _LOST if isinstance(error, _WITHOUT_SQLSTATE) else None


def _unwrap(error: BaseException) -> BaseException:
    """Return the driver's error, which SQLAlchemy wraps while it connects."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _find_cause(error: BaseException) -> str:
    """Return the cause of a failed connection, as far as callers may know it."""
    return "TOO_MANY_OPEN_FILES" if getattr(_unwrap(error), "errno", None) in (EMFILE, ENFILE) else ""
