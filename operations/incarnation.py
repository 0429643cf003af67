"""Gives the database a new incarnation after it was restored from a backup or failed over with loss.

No other step is needed. Command servers read the incarnation in every transaction, the relay compares it
once a second and recreates the stream, and the projectors follow the incarnation of the stream.
"""

from sqlalchemy import text

from contracts import incarnations
from runtime.postgres import create_engine

SELECT_INCARNATION = "SELECT incarnation FROM relay_state WHERE id = 1 FOR UPDATE"
UPDATE_INCARNATION = "UPDATE relay_state SET incarnation = :new WHERE id = 1"

NEXT_STEPS = """\
From now on, without further commands:
  earlier consistency tokens are rejected with TOKEN_OUTDATED
  the relay recreates the stream from PostgreSQL
  the projectors rebuild their views; queries answer VIEW_REBUILDING meanwhile
Commands that the backup does not hold are lost; if a caller repeats one, it is executed again.
Persons who were forgotten since the backup was made have their keys again: run `diptych forget --from`.
`diptych status` shows the progress, `diptych verify` the result."""


async def replace_incarnation(database_url: str) -> tuple[str, str]:
    """Give the database a new incarnation; return the old and the new one."""
    engine = create_engine(database_url)
    try:
        async with engine.begin() as connection:
            old = str((await connection.execute(text(SELECT_INCARNATION))).scalar_one())
            new = incarnations.create(old)
            await connection.execute(text(UPDATE_INCARNATION), {"new": new})
    finally:
        await engine.dispose()
    return old, new
