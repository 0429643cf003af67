"""Steps are sent until they are answered, timers fire once they have run out: the clockwork of all sagas.

A step of which nothing is known is sent again under its request id, for ever, ever more slowly. Only what was
answered is undone: a release that overtakes its reservation would leave that behind.
"""

import asyncio
from contextlib import suppress

from opentelemetry.trace import SpanKind

from process_manager.due_work import DueStep, DueTimer
from process_manager.engine import Engine
from process_manager.leases import Leases
from process_manager.step_client import NoReply, StepClient, StepReply
from process_manager.store import SagaStore
from runtime.backoff import pause_before
from runtime.process import logs
from runtime.telemetry import tracing

AT_ONCE = 64
"""Steps under way at a time."""
POLL = 0.25
"""Seconds between looks at what is due, when no saga of this process has wanted anything."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a step without an answer is sent again."""

log = logs.get_logger(__name__)


class StepDispatcher:
    """Sends the steps and fires the timers of the partitions that this process holds.

    Args:
        engine: tells the sagas what came of it.
        store: knows what is due.
        caller: sends.
        leases: which partitions those are.
    """

    def __init__(self, engine: Engine, store: SagaStore, caller: StepClient, leases: Leases) -> None:
        self._engine = engine
        self._store = store
        self._caller = caller
        self._leases = leases
        self._under_way: dict[tuple[str, str, str], asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until the process stops, then let what is under way end."""
        said = ""
        while not stopping.is_set():
            self._engine.work_added.clear()
            try:
                await self._fire_due_timers()
                await self._send_due_steps()
                said = ""
            except Exception as error:  # PostgreSQL is away, for instance
                if said != repr(error):
                    said = repr(error)
                    log.warning("Cannot look at what is due", reason=said)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._engine.work_added.wait(), POLL)
        await asyncio.gather(*self._under_way.values())

    async def _fire_due_timers(self) -> None:
        if self._leases.held:
            for timer in await self._store.due_timers(self._leases.held, AT_ONCE):
                if timer.saga in self._engine.sagas:
                    await self._fire_timer(timer)

    async def _fire_timer(self, timer: DueTimer) -> None:
        try:
            await self._engine.fire_timer(timer)
        except Exception as error:  # a bug of the saga's, perhaps: other sagas go on
            log.exception("Timer could not be told", saga=timer.saga, sagaId=timer.id, error=repr(error))
            await self._store.postpone_timer(timer, LONGEST_PAUSE)

    async def _send_due_steps(self) -> None:
        free = AT_ONCE - len(self._under_way)
        if not self._leases.held or not free:
            return
        busy = set(self._under_way)  # what ends while PostgreSQL is asked may still look due
        for step in await self._store.due_steps(self._leases.held, AT_ONCE + len(busy)):
            key = (step.saga, step.id, step.step)
            if key not in busy and step.saga in self._engine.sagas and free > 0:
                free -= 1
                task = self._under_way[key] = asyncio.create_task(self._execute_step(step))
                task.add_done_callback(lambda _, key=key: self._step_ended(key))  # type: ignore[misc]

    def _step_ended(self, key: tuple[str, str, str]) -> None:
        del self._under_way[key]
        if len(self._under_way) == AT_ONCE - 1:
            self._engine.work_added.set()

    async def _execute_step(self, step: DueStep) -> None:
        try:
            await self._engine.record_reply(step, await self._reply(step))
        except NoReply as error:
            await self._postpone(step, str(error))
        except Exception as error:  # PostgreSQL is away, or the saga has a bug: the answer is asked for again
            await self._postpone(step, f"its answer could not be told: {error!r}")

    async def _reply(self, step: DueStep) -> StepReply:
        with tracing.span(f"{step.saga} {step.step}", kind=SpanKind.CLIENT, parent=step.traceparent):
            reply = await self._caller.call(step, tracing.current_traceparent() or step.traceparent)
        log.info(
            "Step answered", saga=step.saga, sagaId=step.id, step=step.step, outcome=reply.reason or "OK"
        )
        return reply

    async def _postpone(self, step: DueStep, error: str) -> None:
        pause = pause_before(step.tries, FIRST_PAUSE, LONGEST_PAUSE)
        log.warning("Step had no answer", saga=step.saga, sagaId=step.id, step=step.step, error=error)
        try:
            await self._store.postpone_step(step, pause, error)
        except Exception as away:
            log.warning("A step could not be postponed", step=step.step, sagaId=step.id, error=repr(away))
            await asyncio.sleep(POLL)
