"""Sends due steps until they are answered.

How it works:

- The engine hands over each new step of a leased partition after its commit. It waits in memory for a place
  of its target (`step_queue.py`, `targets.py`), those of older sagas first, and runs in a task of its own.
  So the steps that wait for one target neither hide nor delay those of another, however many they are.
- A loop polls the due rows of `saga_steps` for what is not in memory: after a start or a change of leases,
  steps that are due again, those that found no place in memory, and those that another process has added.
- A final answer goes to the engine, which records it once. A step with an unknown outcome is postponed and
  sent again under the same request id, without a limit on tries: with exponential backoff, but only briefly
  if its target did not answer, because then the target's breaker sets the pace.
- A saga compensates only for answered steps. Otherwise a release could overtake its reservation in the
  network, and the reservation would stay behind.
- A step whose delivery fails, because of PostgreSQL or a bug in the saga, is postponed as well; the other
  sagas continue.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from time import monotonic

from contracts import streams
from process_manager import metrics, traces
from process_manager.dispatch.step_client import OutcomeUnknown, StepClient, StepReply
from process_manager.dispatch.step_queue import StepKey, StepQueue, create_due_step, key_of
from process_manager.dispatch.targets import CALL_TIMEOUT, PLACES, Target, Targets, target_of
from process_manager.engine import Engine
from process_manager.groups.instance import Instance, RowUnreadable
from process_manager.leases import Leases
from process_manager.postgres.due_work import DueStep
from process_manager.postgres.store import SagaStore
from runtime.backoff import compute_pause
from runtime.process import logs
from runtime.telemetry import trace_context

INTERVAL = 0.25
"""Seconds between two checks whether a silent target is to be probed, or a poll is due."""
POLL_INTERVAL, LONE_POLL_INTERVAL = 0.25, 1.0
"""Seconds between two polls of due work: while other managers have leases too, and otherwise."""
INITIAL_PAUSE, MAX_PAUSE = 0.2, 10.0
"""Seconds before an unanswered step is sent again."""
UNREADABLE_PAUSE = 300.0
"""Seconds before a step is sent again whose instance cannot be read; at once when it can be read again."""
MAX_SILENT_PAUSE = 1.0
"""Seconds before a step is sent again whose target did not answer."""

log = logs.get_logger(__name__)


class StepDispatcher:
    """Sends the steps of the partitions that this process has leased.

    Args:
        engine: delivers replies to the sagas.
        store: reads due work.
        client: sends steps.
        leases: the leased partitions.
    """

    def __init__(self, engine: Engine, store: SagaStore, client: StepClient, leases: Leases) -> None:
        self._engine = engine
        self._postponed = logs.LimitedErrors(log, "Step postponed", level="warning")
        self._failures = logs.LimitedErrors(log, "Postponing step failed", level="warning")
        self._store = store
        self._client = client
        self._leases = leases
        self._targets = Targets()
        self._queue = StepQueue()
        self._polled_at = 0.0
        self._stopped = False
        self._polled_partitions: frozenset[int] = frozenset()
        self._tasks: dict[StepKey, asyncio.Task[None]] = {}
        """The steps being sent."""
        engine.on_steps = self._add_steps

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until the process stops, then wait for the steps being sent."""
        failures = logs.RepeatedErrors(log, "Polling due steps failed")
        while not stopping.is_set():
            self._forget_silences()
            self._leases.silent_targets = self._targets.list_silent()
            work_added = self._engine.work_added.is_set()
            self._engine.work_added.clear()
            try:
                if self._must_poll(work_added=work_added):
                    await self._poll()
                    failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            for target in self._targets.list_all():
                self._send(target)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine.work_added.wait(), INTERVAL)
        self._stopped = True
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        """Wait for the steps being sent; cancel those of slow targets, which are sent again later."""
        if self._tasks:
            _, running = await asyncio.wait(self._tasks.values(), timeout=CALL_TIMEOUT)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _must_poll(self, *, work_added: bool) -> bool:
        partitions = self._leases.partitions
        if work_added or partitions != self._polled_partitions:
            return bool(partitions)
        is_lone = len(partitions) == streams.PARTITIONS
        interval = LONE_POLL_INTERVAL if is_lone else POLL_INTERVAL
        return bool(partitions) and monotonic() - self._polled_at >= interval

    async def _poll(self) -> None:
        """Take over due steps that are not in memory, of each target as many as it has places."""
        partitions, now = self._leases.partitions, monotonic()
        limits = {each.name: each.count_free(now) for each in self._targets.list_silent().values()}
        # A step that ends during the query may still be in its result, so take the keys before it.
        known = {*self._queue, *self._tasks}
        due = await self._store.read_due_steps(self._engine.sagas.keys(), partitions, limits, known)
        self._polled_at, self._polled_partitions = now, partitions
        for name, number in Counter(target_of(step.method) for step in due).items():
            self._targets.find(name).overflowed |= number == limits.get(name, PLACES)  # there may be more
        for step in due:
            self._put(step)

    def _add_steps(self, instance: Instance) -> None:
        """Take over the new steps of an instance, unless its partition is leased to another process."""
        if streams.partition(instance.id) in self._leases.partitions:
            for step in instance.steps:
                self._put(create_due_step(instance, step))

    def _put(self, step: DueStep) -> None:
        if key_of(step) in self._tasks:
            return
        target = self._targets.find(target_of(step.method))
        target.overflowed |= self._queue.put(step)
        self._send(target)

    def _send(self, target: Target) -> None:
        """Send waiting steps to a target that has places."""
        while not self._stopped and target.count_free(monotonic()):
            # One request may hang in a target that answers all others: each probe is another one.
            step = self._queue.take(target.name, in_turn=target.silent)
            if step is None:
                if target.overflowed:
                    target.overflowed = False
                    self._engine.work_added.set()
                return
            if streams.partition(step.id) in self._leases.partitions:
                self._start(step, target)

    def _start(self, step: DueStep, target: Target) -> None:
        key = key_of(step)
        target.active += 1
        task = self._tasks[key] = asyncio.create_task(self._execute_step(step, target))
        task.add_done_callback(lambda _: self._remove_task(key, target))

    def _remove_task(self, key: StepKey, target: Target) -> None:
        del self._tasks[key]
        target.active -= 1
        self._send(target)

    async def _execute_step(self, step: DueStep, target: Target) -> None:
        try:
            reply = await self._call(step, target)
        except OutcomeUnknown as error:
            await self._postpone(step, target, error)
        except Exception as error:  # for example, no installed service has the method of an old step
            metrics.STEP_ATTEMPTS.count(target.name, "unknown")
            await self._postpone(step, target, OutcomeUnknown(f"it cannot be sent: {error!r}"))
        else:
            await self._deliver(step, target, reply)

    async def _deliver(self, step: DueStep, target: Target, reply: StepReply) -> None:
        try:
            await self._engine.record_reply(step, reply)
        except RowUnreadable as error:
            await self._postpone(step, target, OutcomeUnknown(str(error)), UNREADABLE_PAUSE)
        except Exception as error:
            # PostgreSQL is unavailable, or the saga has a bug: the same request yields the same reply later.
            await self._postpone(step, target, OutcomeUnknown(f"the delivery of its reply failed: {error!r}"))

    async def _call(self, step: DueStep, target: Target) -> StepReply:
        started = monotonic()
        try:
            with traces.start_call(step) as span:
                reply = await self._client.call(
                    step,
                    trace_context.get_current() or step.traceparent,
                    within=target.timeout,
                    reconnect=target.silent,
                )
                traces.describe_reply(span, reply)
        except OutcomeUnknown as error:
            metrics.STEP_ATTEMPTS.count(target.name, "denied" if error.denied else "unknown")
            if error.silent:
                self._record_silence(target, str(error))
            else:
                self._record_answer(target, monotonic() - started)
            raise
        self._record_answer(target, monotonic() - started)
        metrics.STEP_ATTEMPTS.count(target.name, "rejected" if reply.reason else "accepted")
        log.info(
            "Step answered",
            saga=step.saga,
            sagaId=step.id,
            step=step.step,
            outcome=reply.reason or "OK",
            correlationId=step.correlation_id or None,
            **trace_context.build_log_fields(step.traceparent),
        )
        return reply

    def _record_silence(self, target: Target, error: str) -> None:
        if target.record_silence(error, monotonic()):
            metrics.TARGET_SILENT.set(1, target.name)
            log.warning("Step target does not answer", target=target.name, error=error)

    def _record_answer(self, target: Target, seconds: float) -> None:
        if target.record_answer(seconds):
            metrics.TARGET_SILENT.set(0, target.name)
            seconds_silent = round(monotonic() - target.silent_since, 1)
            log.info("Step target answers again", target=target.name, seconds=seconds_silent)
            self._engine.work_added.set()
        self._send(target)

    def _forget_silences(self) -> None:
        """Report targets as silent only while steps wait for them here."""
        for target in self._targets.list_all():
            if target.forget_silence(monotonic()):
                metrics.TARGET_SILENT.set(0, target.name)
                log.info("Step target no longer called", target=target.name)

    async def _postpone(
        self, step: DueStep, target: Target, error: OutcomeUnknown, initial_pause: float = INITIAL_PAUSE
    ) -> None:
        maximum = MAX_SILENT_PAUSE if error.silent else max(MAX_PAUSE, initial_pause)
        pause = compute_pause(step.tries, initial_pause, maximum)
        pause = max(pause, min(error.retry_after, MAX_PAUSE))
        fields = {"saga": step.saga, "sagaId": step.id, "step": step.step}
        fields |= trace_context.build_log_fields(step.traceparent)
        if error.denied:
            if not step.denied:  # an operator must mend the token; `diptych status` counts these sagas
                log.error("Step denied", **fields, error=str(error))
        elif not target.silent:  # a silent target is logged once
            self._postponed.report(**fields, error=str(error))
        try:
            if await self._store.postpone_step(step, pause, str(error), denied=error.denied):
                asyncio.get_running_loop().call_later(pause, self._engine.work_added.set)
                return
        except Exception as store_error:
            self._failures.report(**fields, error=repr(store_error))
        await asyncio.sleep(POLL_INTERVAL)
