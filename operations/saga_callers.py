"""Shows and changes the recorded caller of sagas: the subject of the process manager's token."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from process_manager.postgres.lease_statements import LOCK
from process_manager.postgres.store import SagaStore
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.process.terminal import escape

RECORDED = "SELECT saga, subject, since FROM saga_callers ORDER BY saga"
RUNNING = "SELECT name FROM saga_managers WHERE until > now() ORDER BY name LIMIT 1"
UNANSWERED = """
SELECT s.saga, c.subject, count(*) AS steps FROM saga_steps s JOIN saga_callers c USING (saga)
WHERE s.outcome IS NULL AND s.saga = ANY(CAST(:sagas AS text[])) AND c.subject <> :subject
GROUP BY 1, 2 ORDER BY 1
"""
CHANGE = """
UPDATE saga_callers SET subject = :subject, since = now()
WHERE saga = ANY(CAST(:sagas AS text[])) AND subject <> :subject RETURNING saga
"""


class RecordedCaller(NamedTuple):
    """The caller of a saga's steps, and since when."""

    saga: str
    subject: str
    since: str


async def read_callers(settings: Settings) -> list[RecordedCaller]:
    """Return the recorded caller of each saga that has one."""
    store = SagaStore(settings.database_url)
    try:
        async with store.engine.connect() as connection:
            rows = list(await connection.execute(text(RECORDED)))
    finally:
        await store.close()
    return [
        RecordedCaller(row.saga, row.subject, row.since.astimezone(UTC).isoformat(timespec="seconds"))
        for row in rows
    ]


def describe_callers(callers: Sequence[RecordedCaller]) -> str:
    """Return a line for each of them."""
    lines = [f"{each.saga}  {each.subject}  since {each.since}" for each in callers]
    return "\n".join(map(escape, lines)) or "no process manager has recorded its subject yet"


async def change_caller(settings: Settings, subject: str, saga: str, *, repeat_unanswered: bool) -> str:
    """Record another caller for one saga, or for all; return a line for each changed saga.

    Args:
        settings: name the database.
        subject: of the token with which the steps will be sent.
        saga: the name of a saga; empty for all.
        repeat_unanswered: whether to change it even if unanswered steps are sent again under the new subject.

    Raises:
        StartError: a process manager runs, steps are unanswered, or the saga has no recorded caller.
    """
    if not (subject and subject.isprintable()):
        raise StartError("SUBJECT: must be the subject of an access token")
    store = SagaStore(settings.database_url)
    try:
        async with store.engine.begin() as connection:
            await connection.execute(text(LOCK))  # no manager joins meanwhile
            sagas = await _choose(connection, saga)
            await _check_stopped(connection)
            parameters = {"sagas": sagas, "subject": subject}
            if not repeat_unanswered:
                await _check_answered(connection, parameters)
            changed = sorted(row.saga for row in await connection.execute(text(CHANGE), parameters))
    finally:
        await store.close()
    lines = [f"{name}: steps are sent as {subject} from now on" for name in changed]
    return "\n".join(map(escape, lines)) or "nothing to change"


async def _choose(connection: AsyncConnection, saga: str) -> Sequence[str]:
    recorded = [row.saga for row in await connection.execute(text(RECORDED))]
    if saga and saga not in recorded:
        raise StartError(f"--saga: {saga} has no recorded caller (known: {', '.join(recorded) or 'none'})")
    return [name for name in recorded if saga in ("", name)]


async def _check_stopped(connection: AsyncConnection) -> None:
    row: Any = (await connection.execute(text(RUNNING))).first()
    if row is not None:
        raise StartError(f"the process manager {row.name} runs: stop all process managers first")


async def _check_answered(connection: AsyncConnection, parameters: Mapping[str, Any]) -> None:
    rows = list(await connection.execute(text(UNANSWERED), parameters))
    if rows:
        row = rows[0]
        raise StartError(
            f"{row.saga} has {row.steps} unanswered steps of {row.subject}: start the process managers with a"
            f" token of {row.subject} until they are answered, or see --repeat-unanswered"
        )
