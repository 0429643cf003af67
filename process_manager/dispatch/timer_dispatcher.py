"""Fires due timers, beside the steps: no call of a step and none of its transactions delays a timer.

How it works:

- A loop of its own reads the due rows of `saga_timers` and `saga_deadlines` in the leased partitions. It
  sleeps until the next one is due, also one that a reaction in this process sets meanwhile, and wakes when
  partitions are leased. Every MAX_INTERVAL it looks for what other processes have set.
- Times are PostgreSQL's; this process only measures how long it sleeps.
- A deadline whose turn it is becomes an instance with a timer, which fires at once.
- A timer waits for the replies and events that are due before it (`PrecedingInputs`).
- Timers use connections that steps, events and queries do not (`SagaStore.reserved`).
- Each timer fires in a task of its own, and polls pass over its instance meanwhile: one whose rows another
  session has locked, for as long as it likes, delays no other. After a failure it rests for a while before it
  is read again (`TimerRests`). Timers that met a lock do not get the last places.
- The end of a firing wakes the loop: another timer of the instance may be due.
- A timer whose delivery fails, because of PostgreSQL or a bug in the saga, is postponed; the others fire. So
  is a deadline whose instance cannot begin.
"""

import asyncio
from collections.abc import Collection, Mapping, Set
from datetime import UTC, datetime, timedelta

from process_manager.deadlines.deadlines import RETRY_INTERVAL, Deadlines
from process_manager.dispatch.preceding_inputs import PrecedingInputs
from process_manager.dispatch.timer_rests import TimerRests
from process_manager.engine import Engine
from process_manager.groups.group_commit import RaceLost
from process_manager.groups.instance import RowUnreadable
from process_manager.leases import Leases
from process_manager.postgres.due_work import DueTimer
from process_manager.postgres.group_store import is_outage
from process_manager.postgres.store import SagaStore
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait
from runtime.process.wakeups import wait_for_any

MAX_FIRING = 1_000
"""Timers that fire at once, at most."""
MAX_BATCH = 100
"""Timers that one poll reads, and places that timers which met a lock leave to the others."""
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
        self._failures = logs.RepeatedErrors(log, "Polling due timers failed")
        self._postponed = logs.LimitedErrors(log, "Timer postponed", level="warning")
        self._locked = logs.LimitedErrors(log, "Timer waits for a lock", level="warning")
        self._engine = engine
        self._store = store
        self._leases = leases
        self._preceding = preceding
        self._deadlines = deadlines
        self._firing: dict[DueTimer, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._rests = TimerRests(self._woken.set)
        self._wakes_at = NEVER
        """The time of the next poll; timers that are set later need no earlier one."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Fire timers until the process stops."""
        self._engine.on_timers = self._deadlines.on_deadlines = self._wake_for
        self._leases.on_change(self._woken.set)
        try:
            while not stopping.is_set():
                self._woken.clear()
                self._wakes_at, pause = NEVER, MAX_INTERVAL
                try:
                    if await self._fire_due_timers() == MAX_BATCH:
                        continue
                    pause = await self._compute_pause()
                    self._failures.reset()
                except Exception as error:  # for example, PostgreSQL is unavailable
                    self._failures.report(error)
                await asyncio.sleep(MIN_INTERVAL)
                await wait_for_any(stopping, self._woken, timeout=pause - MIN_INTERVAL)
        finally:
            await cancel_and_wait(*self._firing.values())

    def _wake_for(self, at: datetime) -> None:
        """Poll when a timer of this time is due."""
        if at < self._wakes_at:
            self._woken.set()

    async def _compute_pause(self) -> float:
        """Return the seconds until the next timer is due, at most MAX_INTERVAL."""
        now, next_at = await self._deadlines.read_next(self._leases.partitions, self._list_busy())
        self._wakes_at = min(next_at or NEVER, now + timedelta(seconds=MAX_INTERVAL))
        return max(MIN_INTERVAL, (self._wakes_at - now).total_seconds())

    def _list_busy(self) -> Collection[DueTimer]:
        """Return the timers that are not to be read."""
        busy, locked = self._rests.resting.union(self._firing), self._rests.locked
        places = MAX_FIRING - 2 * MAX_BATCH  # one poll more may find nothing but locked ones
        return busy if len(self._firing.keys() & locked) < places else busy.union(locked)

    async def _fire_due_timers(self) -> int:
        """Begin to fire the expired timers whose turn it is; return the number of all that have expired."""
        partitions, busy = self._leases.partitions, self._list_busy()
        limit = min(MAX_BATCH, MAX_FIRING - len(self._firing))
        if not partitions or not limit:
            return 0
        timers = await self._store.read_due_timers(self._engine.sagas.keys(), partitions, limit, busy)
        deadlines = await self._deadlines.read_due(partitions, limit, busy)
        if not timers and not deadlines:
            return 0
        ready, pauses = await self._preceding.choose([*timers, *deadlines], deadlines)
        of_deadlines = set(deadlines)
        await self._postpone_waiting(pauses, of_deadlines)
        ready_deadlines = [timer for timer in ready if timer in of_deadlines]
        begun = await self._deadlines.begin_instances(ready_deadlines)
        self._rests.begin_after_lock(*(timer for timer in ready_deadlines if timer not in begun))
        for timer in (*begun, *(timer for timer in ready if timer not in of_deadlines)):
            self._firing[timer] = asyncio.create_task(self._fire(timer))
        return max(len(timers), len(deadlines))

    async def _postpone_waiting(self, pauses: Mapping[DueTimer, float], deadlines: Set[DueTimer]) -> None:
        """Postpone timers that wait for inputs. Those with locked rows would be read again without end."""
        postponed = await self._store.postpone_timers({t: pauses[t] for t in pauses.keys() - deadlines})
        postponed |= await self._deadlines.postpone({t: pauses[t] for t in pauses.keys() & deadlines})
        self._rests.begin_after_lock(*(pauses.keys() - postponed))

    async def _fire(self, timer: DueTimer) -> None:
        try:
            await self._engine.fire_timer(timer)
            self._rests.forget(timer)
        except RowUnreadable:  # `Inspection` marks it, and fires the timer when it can be read
            await self._postpone(timer, UNREADABLE_INTERVAL)
        except RaceLost as error:  # it fires once the lock is gone
            self._rests.begin_after_lock(timer)
            self._locked.report(saga=timer.saga, sagaId=timer.id, error=str(error))
        except Exception as error:  # perhaps a bug in one saga, which must not stop the others
            if is_outage(error):
                self._rests.begin(timer)
                self._postponed.report(saga=timer.saga, sagaId=timer.id, error=repr(error))
            else:
                log.exception("Timer delivery failed", saga=timer.saga, sagaId=timer.id, error=repr(error))
                await self._postpone(timer, RETRY_INTERVAL)
        finally:
            del self._firing[timer]
            self._woken.set()

    async def _postpone(self, timer: DueTimer, pause: float) -> None:
        self._rests.begin(timer)
        try:
            await self._store.postpone_timers({timer: pause})
        except Exception as error:  # for example, PostgreSQL is unavailable
            self._failures.report(error)
