"""After PostgreSQL was restored from a backup, or failed over with loss: the database gets a new incarnation.

Nothing else needs telling. Command servers read the incarnation in every transaction, the relay compares it
once a second and makes the stream anew, and the projectors follow the stream's.
"""

from sqlalchemy import text

from contracts import incarnations
from runtime.postgres import create_engine

OLD = "SELECT incarnation FROM relay_state WHERE id = 1 FOR UPDATE"
NEW = "UPDATE relay_state SET incarnation = :new WHERE id = 1"

NEXT = """\
From now on, by themselves:
  tokens from before are refused with TOKEN_OUTDATED
  the relay makes the stream anew and fills it from PostgreSQL
  the projectors wipe their views and fill them again; queries answer VIEW_REBUILDING meanwhile
Commands that the backup does not hold are lost; callers that repeat one have it executed anew.
`diptych status` shows how far it is, `diptych verify` whether all is well."""


async def restored(database_url: str) -> tuple[str, str]:
    """Give the database a new incarnation; return the old and the new one."""
    engine = create_engine(database_url)
    try:
        async with engine.begin() as connection:
            old = str((await connection.execute(text(OLD))).scalar_one())
            new = incarnations.after(old)
            await connection.execute(text(NEW), {"new": new})
    finally:
        await engine.dispose()
    return old, new
