"""Sends due steps until they are answered, and fires due timers.

How it works:

- A loop polls the due rows of `saga_steps` and `saga_timers` in the leased partitions. `Engine.work_added`
  wakes it at once when a reaction in this process adds work; POLL_INTERVAL finds retries and the work of
  others.
- Each step runs in a task of its own, at most MAX_CONCURRENT_STEPS at a time.
- A final answer goes to the engine, which records it once. A step with an unknown outcome is postponed with
  exponential backoff and sent again under the same request id, without a limit on tries.
- A saga compensates only for answered steps. Otherwise a release could overtake its reservation in the
  network, and the reservation would stay behind.
- A step or a timer whose delivery fails, because of PostgreSQL or a bug in the saga, is postponed as well;
  the other sagas continue.
"""

import asyncio
from contextlib import suppress

from opentelemetry.trace import SpanKind

from process_manager.due_work import DueStep, DueTimer
from process_manager.engine import Engine
from process_manager.leases import Leases
from process_manager.step_client import OutcomeUnknown, StepClient, StepReply
from process_manager.store import SagaStore
from runtime.backoff import compute_pause
from runtime.process import logs
from runtime.telemetry import tracing

MAX_CONCURRENT_STEPS = 64
POLL_INTERVAL = 0.25
"""Seconds between polls of due work, unless a reaction in this process adds some."""
INITIAL_PAUSE, MAX_PAUSE = 0.2, 10.0
"""Seconds before an unanswered step is sent again."""

log = logs.get_logger(__name__)


class StepDispatcher:
    """Sends the steps and fires the timers of the partitions that this process has leased.

    Args:
        engine: delivers replies and timers to the sagas.
        store: reads due work.
        client: sends steps.
        leases: the leased partitions.
    """

    def __init__(self, engine: Engine, store: SagaStore, client: StepClient, leases: Leases) -> None:
        self._engine = engine
        self._store = store
        self._client = client
        self._leases = leases
        self._tasks: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        """The steps being sent, by saga, id and step."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until the process stops, then wait for the steps being sent."""
        logged_error = ""
        while not stopping.is_set():
            self._engine.work_added.clear()
            try:
                await self._fire_due_timers()
                await self._send_due_steps()
                logged_error = ""
            except Exception as error:  # for example, PostgreSQL is unavailable
                if logged_error != repr(error):  # log an error that repeats once
                    logged_error = repr(error)
                    log.warning("Polling due work failed", error=logged_error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine.work_added.wait(), POLL_INTERVAL)
        await asyncio.gather(*self._tasks.values())

    async def _fire_due_timers(self) -> None:
        if self._leases.partitions:
            sagas, partitions = self._engine.sagas.keys(), self._leases.partitions
            for timer in await self._store.read_due_timers(sagas, partitions, MAX_CONCURRENT_STEPS):
                await self._fire_timer(timer)

    async def _fire_timer(self, timer: DueTimer) -> None:
        try:
            await self._engine.fire_timer(timer)
        except Exception as error:  # perhaps a bug in one saga, which must not stop the others
            log.exception("Timer delivery failed", saga=timer.saga, sagaId=timer.id, error=repr(error))
            await self._store.postpone_timer(timer, MAX_PAUSE)

    async def _send_due_steps(self) -> None:
        free_slots = MAX_CONCURRENT_STEPS - len(self._tasks)
        if not self._leases.partitions or not free_slots:
            return
        # A step that ends during the query may still be in its result, so take the keys before it.
        active = set(self._tasks)
        limit = MAX_CONCURRENT_STEPS + len(active)
        sagas = self._engine.sagas.keys()
        for step in await self._store.read_due_steps(sagas, self._leases.partitions, limit):
            key = (step.saga, step.id, step.step)
            if key not in active and free_slots > 0:
                free_slots -= 1
                task = self._tasks[key] = asyncio.create_task(self._execute_step(step))
                task.add_done_callback(lambda _, key=key: self._remove_task(key))  # type: ignore[misc]

    def _remove_task(self, key: tuple[str, str, str]) -> None:
        del self._tasks[key]
        if len(self._tasks) == MAX_CONCURRENT_STEPS - 1:
            self._engine.work_added.set()

    async def _execute_step(self, step: DueStep) -> None:
        try:
            await self._engine.record_reply(step, await self._call(step))
        except OutcomeUnknown as error:
            await self._postpone(step, str(error), denied=error.denied)
        except Exception as error:
            # PostgreSQL is unavailable, or the saga has a bug: the same request yields the same reply later.
            await self._postpone(step, f"the delivery of its reply failed: {error!r}")

    async def _call(self, step: DueStep) -> StepReply:
        with tracing.span(f"{step.saga} {step.step}", kind=SpanKind.CLIENT, parent=step.traceparent):
            reply = await self._client.call(step, tracing.current_traceparent() or step.traceparent)
        log.info(
            "Step answered", saga=step.saga, sagaId=step.id, step=step.step, outcome=reply.reason or "OK"
        )
        return reply

    async def _postpone(self, step: DueStep, error: str, *, denied: bool = False) -> None:
        pause = compute_pause(step.tries, INITIAL_PAUSE, MAX_PAUSE)
        if not denied:
            log.warning("Step postponed", saga=step.saga, sagaId=step.id, step=step.step, error=error)
        elif not step.denied:  # an operator must mend the token; `diptych status` counts these sagas
            log.error("Step denied", saga=step.saga, sagaId=step.id, step=step.step, error=error)
        try:
            await self._store.postpone_step(step, pause, error, denied=denied)
        except Exception as store_error:
            log.warning(
                "Postponing step failed",
                saga=step.saga,
                sagaId=step.id,
                step=step.step,
                error=repr(store_error),
            )
            await asyncio.sleep(POLL_INTERVAL)
