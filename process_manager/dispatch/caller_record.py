"""The caller of each saga's steps: the subject of the process manager's token, kept on record.

A request id belongs to its caller, so a step that is sent again under another subject may have its effect a
second time. The first manager of a saga records its subject. A manager with another one does not start, and a
token with another subject, which may replace the file at any time, is not used.
"""

from collections.abc import Sequence
from time import monotonic

import jwt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.process.terminal import escape

CHECK_INTERVAL = 5.0
"""Seconds after which the record is read again, since an operator may have changed it."""

CLAIM = """
INSERT INTO saga_callers (saga, subject, since)
SELECT saga, :subject, now() FROM unnest(CAST(:sagas AS text[])) AS saga ORDER BY saga
ON CONFLICT (saga) DO NOTHING
"""
OTHERS = """
SELECT saga, subject FROM saga_callers
WHERE saga = ANY(CAST(:sagas AS text[])) AND subject <> :subject ORDER BY saga
"""


class WrongCaller(Exception):
    """The token has another subject than the one on record; the message names both and what to do."""


class CallerRecord:
    """The recorded subjects of the sagas of one process.

    Args:
        engine: the database.
        sagas: the names of the sagas.
    """

    def __init__(self, engine: AsyncEngine, sagas: Sequence[str]) -> None:
        self._engine = engine
        self._sagas = list(sagas)
        self._checked = ("", 0.0)
        """The last valid token, and until when it needs no further check."""

    async def check(self, token: str) -> None:
        """Compare a token's subject with the record; record it for the sagas that have none.

        Raises:
            WrongCaller: the token has another subject, or none.
        """
        checked, until = self._checked
        if token == checked and monotonic() < until:
            return
        subject = read_subject(token)
        if not subject:
            raise WrongCaller("DIPTYCH_PROCESS_MANAGER_TOKEN: the file holds no token with a subject")
        parameters = {"sagas": self._sagas, "subject": subject}
        async with self._engine.begin() as connection:
            others = list(await connection.execute(text(OTHERS), parameters))
            if not others:
                await connection.execute(text(CLAIM), parameters)
                others = list(await connection.execute(text(OTHERS), parameters))
        if others:
            raise WrongCaller(_describe(subject, *others[0]))
        self._checked = token, monotonic() + CHECK_INTERVAL


def read_subject(token: str) -> str:
    """Return the subject of a token, which its receivers verify; empty if it has none."""
    try:
        subject = jwt.decode(token, options={"verify_signature": False}).get("sub")
    except jwt.PyJWTError:
        return ""
    return subject if isinstance(subject, str) else ""


def _describe(subject: str, saga: str, recorded: str) -> str:
    return escape(
        f"DIPTYCH_PROCESS_MANAGER_TOKEN: its subject is {subject}, but the steps of {saga} are sent as"
        f" {recorded}: use a token of {recorded}, or see `diptych sagas change-caller`"
    )
