"""Sends due steps until they are answered.

How it works:

- A loop polls the due rows of `saga_steps` in the leased partitions. `Engine.work_added` wakes it when
  a reaction in this process adds a step; POLL_INTERVAL finds retries and the work of others.
- Each step runs in a task of its own and occupies a place of its target (`targets.py`). The poll reads of
  each target only as many steps as have a place, so the steps that wait for one target neither hide nor
  delay those of another, however many they are.
- A final answer goes to the engine, which records it once. A step with an unknown outcome is postponed and
  sent again under the same request id, without a limit on tries: with exponential backoff, but only briefly
  if its target did not answer, because then the target's breaker sets the pace.
- A saga compensates only for answered steps. Otherwise a release could overtake its reservation in the
  network, and the reservation would stay behind.
- A step whose delivery fails, because of PostgreSQL or a bug in the saga, is postponed as well; the other
  sagas continue.
"""

import asyncio
from contextlib import suppress
from time import monotonic

from opentelemetry.trace import SpanKind

from process_manager.due_work import DueStep
from process_manager.engine import Engine
from process_manager.instance import RowUnreadable
from process_manager.leases import Leases
from process_manager.step_client import OutcomeUnknown, StepClient, StepReply
from process_manager.store import SagaStore
from process_manager.targets import CALL_TIMEOUT, Target, Targets, target_of
from runtime.backoff import compute_pause
from runtime.process import logs
from runtime.telemetry import metrics, tracing

POLL_INTERVAL = 0.25
"""Seconds between polls of due work, unless a reaction in this process adds some."""
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
        self._tasks: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        """The steps being sent, by saga, id and step."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until the process stops, then wait for the steps being sent."""
        failures = logs.RepeatedErrors(log, "Polling due steps failed")
        while not stopping.is_set():
            self._engine.work_added.clear()
            try:
                self._leases.silent_targets = self._targets.list_silent()
                await self._send_due_steps()
                failures.reset()
            except Exception as error:  # for example, PostgreSQL is unavailable
                failures.report(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine.work_added.wait(), POLL_INTERVAL)
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        """Wait for the steps being sent; cancel those of slow targets, which are sent again later."""
        if self._tasks:
            _, running = await asyncio.wait(self._tasks.values(), timeout=CALL_TIMEOUT)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _send_due_steps(self) -> None:
        if not self._leases.partitions:
            return
        # A step that ends during the query may still be in its result, so take the keys before it.
        active = set(self._tasks)
        limits = self._targets.compute_limits(monotonic())
        sagas = self._engine.sagas.keys()
        due = await self._store.read_due_steps(sagas, self._leases.partitions, limits)
        for step in due:
            key, target = (step.saga, step.id, step.step), self._targets.find(target_of(step.method))
            if key not in active and key not in self._tasks and target.count_free(monotonic()):
                target.active += 1
                task = self._tasks[key] = asyncio.create_task(self._execute_step(step, target))
                task.add_done_callback(lambda _, key=key, target=target: self._remove_task(key, target))  # type: ignore[misc]

    def _remove_task(self, key: tuple[str, str, str], target: Target) -> None:
        del self._tasks[key]
        was_full = not target.count_free(monotonic())
        target.active -= 1
        if was_full and not target.silent:
            self._engine.work_added.set()

    async def _execute_step(self, step: DueStep, target: Target) -> None:
        try:
            reply = await self._call(step, target)
        except OutcomeUnknown as error:
            await self._postpone(step, target, error)
        except Exception as error:  # for example, no installed service has the method of an old step
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
            with tracing.span(f"{step.saga} {step.step}", kind=SpanKind.CLIENT, parent=step.traceparent):
                reply = await self._client.call(
                    step,
                    tracing.current_traceparent() or step.traceparent,
                    within=target.timeout,
                    reconnect=target.silent,
                )
        except OutcomeUnknown as error:
            if error.silent:
                self._record_silence(target, str(error))
            else:
                self._record_answer(target, monotonic() - started)
            raise
        self._record_answer(target, monotonic() - started)
        log.info(
            "Step answered", saga=step.saga, sagaId=step.id, step=step.step, outcome=reply.reason or "OK"
        )
        return reply

    def _record_silence(self, target: Target, error: str) -> None:
        if target.record_silence(error, monotonic()):
            metrics.step_target_silent(target.name, True)
            log.warning("Step target does not answer", target=target.name, error=error)

    def _record_answer(self, target: Target, seconds: float) -> None:
        if target.record_answer(seconds):
            metrics.step_target_silent(target.name, False)
            seconds_silent = round(monotonic() - target.silent_since, 1)
            log.info("Step target answers again", target=target.name, seconds=seconds_silent)
            self._engine.work_added.set()

    async def _postpone(
        self, step: DueStep, target: Target, error: OutcomeUnknown, initial_pause: float = INITIAL_PAUSE
    ) -> None:
        maximum = MAX_SILENT_PAUSE if error.silent else max(MAX_PAUSE, initial_pause)
        pause = compute_pause(step.tries, initial_pause, maximum)
        pause = max(pause, min(error.retry_after, MAX_PAUSE))
        fields = {"saga": step.saga, "sagaId": step.id, "step": step.step}
        if error.denied:
            if not step.denied:  # an operator must mend the token; `diptych status` counts these sagas
                log.error("Step denied", **fields, error=str(error))
        elif not target.silent:  # a silent target is logged once
            self._postponed.report(**fields, error=str(error))
        try:
            await self._store.postpone_step(step, pause, str(error), denied=error.denied)
        except Exception as store_error:
            self._failures.report(**fields, error=repr(store_error))
            await asyncio.sleep(POLL_INTERVAL)
