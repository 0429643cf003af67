"""The subtrees of the tree over all checkpoints, which each checkpoint completes and keeps."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from contracts.audit.merkle import Subtree

if TYPE_CHECKING:
    import asyncpg

READ = """
SELECT s.level, s.until, c.subtrees[s.level + 1] AS root
FROM unnest($1::int[], $2::bigint[]) AS s(level, until) JOIN audit_checkpoints c ON c.number = s.until
"""


async def read_subtrees(
    driver: "asyncpg.Connection[Any]", subtrees: Iterable[Subtree]
) -> dict[Subtree, bytes]:
    """Return the roots of complete subtrees.

    Raises:
        LookupError: a checkpoint is missing, or has too few subtrees.
    """
    wanted = list(subtrees)
    rows = await driver.fetch(READ, [level for level, _ in wanted], [until for _, until in wanted])
    found = {(row["level"], row["until"]): row["root"] for row in rows if row["root"] is not None}
    if missing := [subtree for subtree in wanted if subtree not in found]:
        raise LookupError(f"checkpoint {missing[0][1]} is missing or incomplete")
    return found
