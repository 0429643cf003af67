"""Single checkpoints, as texts."""

from contracts.audit.checkpoint import join_text
from operations.audit.database import connect
from runtime.process.start_error import StartError

READ = """
SELECT entry, root, key_id, signature FROM audit_checkpoints WHERE $1::bigint IS NULL OR number = $1
ORDER BY number DESC LIMIT 1
"""


async def read_text(database_url: str, number: int | None) -> str:
    """Return the text of a checkpoint, or of the last one.

    Raises:
        StartError: there is none.
    """
    async with connect(database_url) as driver:
        row = await driver.fetchrow(READ, number)
    if row is None:
        raise StartError(f"there is no checkpoint {number}" if number else "nothing is sealed yet")
    return join_text(row["entry"], row["root"], row["key_id"], row["signature"])
