"""Reads rows of records in order of their keys, with their leaves.

How it works. Most keys have no index that gives their order, only one that finds a range of them
(`CREATE INDEX ... USING brin`). So rows are read in ranges that are as wide as they need to be: numbers have
few gaps, and times are halved until there are few enough rows.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.audit.records import Record, Row

if TYPE_CHECKING:
    import asyncpg

PAGE = 20_000
"""Rows that are read at once."""
HOUR = 3_600_000_000
"""Microseconds."""


async def read_rows(
    driver: "asyncpg.Connection[Any]", record: Record, after: int, until: int, limit: int
) -> tuple[list[Row], int]:
    """Return the next rows of a record, at least one if there is any, and the key up to which they go.

    Args:
        driver: a connection that may read the record.
        record: whose rows.
        after: the key after which they begin.
        until: the last key.
        limit: the number of rows; there are more only if they have the same key.
    """
    statement, width = record.select(), HOUR if record.is_static else limit
    found: Sequence[Any] = ()
    while after < until:
        end = min(until, after + width) if after >= 0 else min(until, 0)
        found = await driver.fetch(statement, after, end, limit + 1)
        if len(found) > limit and end - after > 1:
            width = (end - after) // 2
        elif found:
            if len(found) > limit:
                found = await driver.fetch(statement, after, end, None)
            after = end
            break
        else:
            after, width = end, width * 2
    rows = await asyncio.to_thread(lambda: [record.build_row(tuple(row)) for row in found])
    if record.is_static:  # several rows may have one key
        rows.sort(key=lambda row: (row.key, row.leaf))
    return rows, after


class RowReader:
    """Reads the rows of a record once, from the first one on.

    Args:
        driver: a connection that may read the record.
        record: whose rows.
        last: the last key.
    """

    def __init__(self, driver: "asyncpg.Connection[Any]", record: Record, last: int) -> None:
        self._driver, self._record, self._last = driver, record, last
        self._rows: list[Row] = []
        self._read_to = record.first_key

    async def take(self, until: int) -> list[Row]:
        """Return the rows that follow up to a key."""
        taken = list[Row]()
        while True:
            count = sum(row.key <= until for row in self._rows) if self._rows else 0
            taken += self._rows[:count]
            self._rows = self._rows[count:]
            if self._rows or self._read_to >= min(until, self._last):
                return taken
            self._rows, self._read_to = await read_rows(
                self._driver, self._record, self._read_to, self._last, PAGE
            )
