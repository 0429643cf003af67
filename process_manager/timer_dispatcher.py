"""Fires due timers, beside the steps: no call of a step and none of its transactions delays a timer.

How it works:

- A loop of its own polls the due rows of `saga_timers` and `saga_deadlines` in the leased partitions.
  `Engine.timers_set` wakes it.
- A deadline whose turn it is becomes an instance with a timer, which fires at once.
- A timer waits for the replies and events that are due before it (`PrecedingInputs`).
- Timers use connections that steps, events and queries do not (`SagaStore.reserved`).
- A timer whose delivery fails, because of PostgreSQL or a bug in the saga, is postponed; the others fire.
"""

import asyncio
from contextlib import suppress

from process_manager.deadlines import Deadlines
from process_manager.due_work import DueTimer
from process_manager.engine import Engine
from process_manager.instance import RowUnreadable
from process_manager.leases import Leases
from process_manager.preceding_inputs import PrecedingInputs
from process_manager.store import SagaStore
from runtime.process import logs

CONCURRENT_TIMERS = 3
MAX_BATCH = 100
"""Timers that one poll reads."""
POLL_INTERVAL = 0.25
"""Seconds between polls of due timers, unless a reaction in this process sets one."""
RETRY_INTERVAL = 10.0
"""Seconds before a timer fires again whose delivery failed."""
UNREADABLE_INTERVAL = 300.0
"""Seconds before a timer fires again whose instance cannot be read."""

log = logs.get_logger(__name__)


class TimerDispatcher:
    """Fires the timers of the partitions that this process has leased.

    Args:
        engine: delivers timers to the sagas.
        store: reads due timers.
        leases: the leased partitions.
        preceding: chooses the timers whose turn it is.
        deadlines: reads due deadlines, and begins their instances.
    """

    def __init__(
        self,
        engine: Engine,
        store: SagaStore,
        leases: Leases,
        preceding: PrecedingInputs,
        deadlines: Deadlines,
    ) -> None:
        self._engine = engine
        self._store = store
        self._leases = leases
        self._preceding = preceding
        self._deadlines = deadlines
        self._places = asyncio.Semaphore(CONCURRENT_TIMERS)

    async def run(self, stopping: asyncio.Event) -> None:
        """Fire timers until the process stops."""
        failures = logs.RepeatedErrors(log, "Polling due timers failed")
        while not stopping.is_set():
            self._engine.timers_set.clear()
            try:
                if await self._fire_due_timers() == MAX_BATCH:
                    continue
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine.timers_set.wait(), POLL_INTERVAL)

    async def _fire_due_timers(self) -> int:
        """Fire the expired timers whose turn it is; return the number of all that have expired."""
        if not self._leases.partitions:
            return 0
        partitions = self._leases.partitions
        timers = await self._store.read_due_timers(self._engine.sagas.keys(), partitions, MAX_BATCH)
        deadlines = await self._deadlines.read_due(partitions, MAX_BATCH)
        if not timers and not deadlines:
            return 0
        ready, pauses = await self._preceding.choose([*timers, *deadlines], deadlines)
        is_deadline = set(deadlines).__contains__
        await self._store.postpone_timers({t: pause for t, pause in pauses.items() if not is_deadline(t)})
        await self._deadlines.postpone({t: pause for t, pause in pauses.items() if is_deadline(t)})
        begun = await self._deadlines.begin_instances([timer for timer in ready if is_deadline(timer)])
        async with asyncio.TaskGroup() as group:
            for timer in (*begun, *(timer for timer in ready if not is_deadline(timer))):
                group.create_task(self._fire(timer))
        return max(len(timers), len(deadlines))

    async def _fire(self, timer: DueTimer) -> None:
        async with self._places:
            try:
                await self._engine.fire_timer(timer)
            except RowUnreadable:  # `Inspection` marks it, and fires the timer when it can be read
                await self._store.postpone_timers({timer: UNREADABLE_INTERVAL})
            except Exception as error:  # perhaps a bug in one saga, which must not stop the others
                log.exception("Timer delivery failed", saga=timer.saga, sagaId=timer.id, error=repr(error))
                await self._store.postpone_timers({timer: RETRY_INTERVAL})
