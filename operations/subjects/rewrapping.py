"""Wraps the keys of persons with the present master key, so that an older one can be removed.

How it works. Pages of keys that another master key has wrapped are read, unwrapped and wrapped again. A row
is changed only if it still has what was read, so a key that was destroyed meanwhile stays so.
"""

from sqlalchemy import text

from contracts.signed_tokens import GetKeyRing
from contracts.subject_keys import RingWrapper, WrappedKey
from runtime.postgres import create_engine

PAGE = 1_000
"""Keys of one transaction."""
READ = text("""
SELECT id, wrapped_by, wrapped FROM subject_keys
WHERE wrapped IS NOT NULL AND wrapped_by <> :master AND id > :after ORDER BY id LIMIT :limit
""")
WRITE = text("""
UPDATE subject_keys k SET wrapped = n.wrapped, wrapped_by = :master
FROM unnest(CAST(:ids AS bytea[]), CAST(:before AS bytea[]), CAST(:wrapped AS bytea[]))
  AS n(id, before, wrapped)
WHERE k.id = n.id AND k.wrapped = n.before
""")


async def rewrap(database_url: str, get_ring: GetKeyRing) -> tuple[str, int, int]:
    """Wrap all keys with the present master key.

    Args:
        database_url: of the owner.
        get_ring: returns the keys, older master keys included.

    Returns:
        The id of the master key, the number of keys that were wrapped again, and that of damaged ones.

    Raises:
        MasterKeyMissing: the ring lacks the present master key, or one that keys are wrapped with.
    """
    engine, wrapper = create_engine(database_url), RingWrapper(get_ring)
    done, damaged, after = 0, 0, b""
    master = (await wrapper.wrap({b"": b""}))[0].wrapped_by
    try:
        while True:
            async with engine.begin() as connection:
                values = {"master": master, "after": after, "limit": PAGE}
                rows = [WrappedKey(*row) for row in await connection.execute(READ, values)]
                if not rows:
                    return master, done, damaged
                opened = await wrapper.unwrap_secrets(rows)
                before = {row.id: row.wrapped for row in rows}
                renewed = await wrapper.wrap(opened)
                columns = {
                    "ids": [key.id for key in renewed],
                    "before": [before[key.id] for key in renewed],
                    "wrapped": [key.wrapped for key in renewed],
                }
                done += (await connection.execute(WRITE, {"master": master, **columns})).rowcount
                damaged += len(rows) - len(opened)
                after = rows[-1].id
    finally:
        await engine.dispose()
