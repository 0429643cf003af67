"""The position up to which no event can be added any more.

How it works. Positions are taken before the commit, so an event may appear below one that is committed
already. A transaction locks the table `events` before its first position, and keeps the lock until its commit
is visible. So `Settled` reads the newest position, and waits until each transaction that was writing at that
moment has ended: then nothing is missing up to that position. Transactions of command servers end within
seconds; while one of them, or a person's, does not end, the settled position stays where it is, and so does
everything that reads up to it. Callers that come together share a wait.
"""

import asyncio

from operations_server.records.database import Database, Driver

MAX_WAIT = 1.0
"""Seconds that a question waits for transactions to end; then it answers what was settled before."""
PAUSE = 0.005
"""Seconds between two polls of the transactions; a commit takes some milliseconds."""

FIND_NEWEST = "SELECT coalesce(max(position), 0) FROM events"
FIND_NEWEST_OF_INCARNATION = f"""
SELECT incarnation::text, ({FIND_NEWEST}) FROM relay_state WHERE id = 1
"""  # noqa: S608 - no part of it is data
FIND_WRITERS = """
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = ANY($1::regclass[]) AND mode = ANY($2) AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
READ_SETTLED = """
SELECT coalesce(max(until), 0), (SELECT incarnation::text FROM relay_state WHERE id = 1) FROM event_segments
"""
READ_INCARNATION = "SELECT incarnation::text FROM relay_state WHERE id = 1"


async def await_writers(driver: Driver, tables: list[str], modes: list[str]) -> None:
    """Return when each transaction that holds a lock of these modes on one of the tables has ended."""
    writers = await _find_writers(driver, tables, modes)
    while writers:
        await asyncio.sleep(PAUSE)
        writers &= await _find_writers(driver, tables, modes)


async def _find_writers(driver: Driver, tables: list[str], modes: list[str]) -> set[str]:
    return {row[0] for row in await driver.fetch(FIND_WRITERS, tables, modes)}


async def await_event_writers(driver: Driver) -> None:
    await await_writers(driver, ["events"], ["RowExclusiveLock"])


class Settled:
    """Finds the settled position.

    Args:
        database: its connections.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: asyncio.Task[tuple[str, int]] | None = None
        self._last = ("", 0)

    async def find(self) -> tuple[str, int]:
        """Return the incarnation, and a position that includes all events committed before the call.

        While a transaction does not end, the position is an earlier one.
        """
        for _ in range(2):  # a wait that was under way may have begun before the event was committed
            if joins := self._running is not None and not self._running.done():
                task = self._running
            else:
                task = self._running = asyncio.create_task(self._wait())
                task.add_done_callback(lambda task: task.cancelled() or task.exception())
            assert task is not None  # noqa: S101 - for mypy
            try:
                self._last = await asyncio.wait_for(asyncio.shield(task), MAX_WAIT)
            except TimeoutError:
                break
            if not joins:
                return self._last
        return await self._find_earlier()

    async def read_incarnation(self) -> str:
        return str(await self._database.fetch_value(READ_INCARNATION))

    async def find_newest(self) -> int:
        """Return the highest position of a committed event."""
        return int(await self._database.fetch_value(FIND_NEWEST))

    def close(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _wait(self) -> tuple[str, int]:
        async with self._database.connect() as driver:
            ((incarnation, newest),) = await driver.fetch(FIND_NEWEST_OF_INCARNATION)
            await await_event_writers(driver)
        return incarnation, newest

    async def _find_earlier(self) -> tuple[str, int]:
        """Return the latest position that was found before; the index is built up to such a one, too."""
        (indexed, incarnation), *_ = await self._database.fetch(READ_SETTLED)
        known_incarnation, position = self._last
        return incarnation, max(indexed, position) if known_incarnation == incarnation else indexed
