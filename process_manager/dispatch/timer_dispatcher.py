"""Fires due timers, beside the steps: no call of a step and none of its transactions delays a timer.

How it works:

- A loop of its own reads the due rows of `saga_timers` and `saga_deadlines` in the leased partitions. It
  sleeps until the next one is due, also one that a reaction in this process sets meanwhile, and wakes when
  partitions are leased. Every MAX_INTERVAL it looks for what other processes have set.
- Times are PostgreSQL's; this process only measures how long it sleeps.
- A deadline whose turn it is becomes an instance with a timer, which fires at once.
- A timer waits for the replies and events that are due before it (`PrecedingInputs`).
- Timers use connections that steps, events and queries do not (`SagaStore.reserved`).
- A timer whose delivery fails, because of PostgreSQL or a bug in the saga, is postponed; the others fire. So
  is a deadline whose instance cannot begin.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from process_manager.deadlines.deadlines import RETRY_INTERVAL, Deadlines
from process_manager.dispatch.preceding_inputs import PrecedingInputs
from process_manager.engine import Engine
from process_manager.groups.instance import RowUnreadable
from process_manager.leases import Leases
from process_manager.postgres.due_work import DueTimer
from process_manager.postgres.store import SagaStore
from runtime.process import logs
from runtime.process.wakeups import wait_for_any

CONCURRENT_TIMERS = 3
MAX_BATCH = 100
"""Timers that one poll reads."""
MAX_INTERVAL = 2.0
"""Seconds between polls while no timer is due, as far as this process knows."""
MIN_INTERVAL = 0.02
"""Seconds between polls while timers are due at short intervals."""
UNREADABLE_INTERVAL = 300.0
"""Seconds before a timer fires again whose instance cannot be read."""

NEVER = datetime.max.replace(tzinfo=UTC)
"""Later than any timer."""

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
        self._woken = asyncio.Event()
        self._wakes_at = NEVER
        """The time of the next poll; timers that are set later need no earlier one."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Fire timers until the process stops."""
        failures = logs.RepeatedErrors(log, "Polling due timers failed")
        self._engine.on_timers = self._deadlines.on_deadlines = self._wake_for
        self._leases.on_change(self._woken.set)
        while not stopping.is_set():
            self._woken.clear()
            self._wakes_at, pause = NEVER, MAX_INTERVAL
            try:
                if await self._fire_due_timers() == MAX_BATCH:
                    continue
                pause = await self._compute_pause()
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            await asyncio.sleep(MIN_INTERVAL)
            await wait_for_any(stopping, self._woken, timeout=pause - MIN_INTERVAL)

    def _wake_for(self, at: datetime) -> None:
        """Poll when a timer of this time is due."""
        if at < self._wakes_at:
            self._woken.set()

    async def _compute_pause(self) -> float:
        """Return the seconds until the next timer is due, at most MAX_INTERVAL."""
        now, next_at = await self._deadlines.read_next(self._leases.partitions)
        self._wakes_at = min(next_at or NEVER, now + timedelta(seconds=MAX_INTERVAL))
        return max(MIN_INTERVAL, (self._wakes_at - now).total_seconds())

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
