"""Ends the pauses of steps, timers and deadlines that were written while PostgreSQL's clock was ahead.

Without this, one moment of a clock three hours ahead would delay for three hours each step that a saga sent
then, and each retry that began then. No pause is longer than LONGEST_PAUSE, so a step or retry that is due
later has a wrong time and becomes due at once. A timer or a deadline may be due at any time, so its own time
stays.
"""

import asyncio
from contextlib import suppress

from sqlalchemy import text

from process_manager.dispatch.step_dispatcher import UNREADABLE_PAUSE
from process_manager.dispatch.timer_dispatcher import UNREADABLE_INTERVAL
from process_manager.postgres.store import SagaStore
from runtime.process import logs

LONGEST_PAUSE = max(UNREADABLE_PAUSE, UNREADABLE_INTERVAL) + 10
"""Seconds; the part beyond the pause covers a clock that was set back a little."""
INTERVAL = 10.0
"""Seconds between two searches."""

END_STEP_PAUSES = text("""
UPDATE saga_steps SET due_at = now()
WHERE outcome IS NULL AND due_at > now() + make_interval(secs => :longest)
""")
END_TIMER_PAUSES, END_DEADLINE_PAUSES = (
    text(f"""
UPDATE {table} SET postponed_to = now()
WHERE postponed_to > now() + make_interval(secs => :longest)
""")  # noqa: S608 - composed of constants
    for table in ("saga_timers", "saga_deadlines")
)

log = logs.get_logger(__name__)


class LatePauses:
    """Ends the pauses of all sagas, whichever process has leased their partitions.

    Args:
        store: the database.
    """

    def __init__(self, store: SagaStore) -> None:
        self._store = store

    async def run(self, stopping: asyncio.Event) -> None:
        """Search until the process stops."""
        failures = logs.RepeatedErrors(log, "Search for late pauses failed")
        while not stopping.is_set():
            try:
                await self.end_all()
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), INTERVAL)

    async def end_all(self) -> None:
        """End every pause that is too long."""
        async with self._store.reserved.begin() as connection:
            ended = [
                (await connection.execute(statement, {"longest": LONGEST_PAUSE})).rowcount
                for statement in (END_STEP_PAUSES, END_TIMER_PAUSES, END_DEADLINE_PAUSES)
            ]
        if any(ended):
            log.warning(
                "Late pauses ended; PostgreSQL's clock was ahead", steps=ended[0], timers=sum(ended[1:])
            )
