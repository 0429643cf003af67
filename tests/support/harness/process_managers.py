"""A process manager within the test, whose calls go wrong as told, and which ends in the middle of a step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from process_manager.due_work import DueStep
from process_manager.engine import Engine
from process_manager.event_consumer import EventConsumer, history
from process_manager.leases import Leases
from process_manager.saga_reader import SagaReader
from process_manager.sagas import SAGAS
from process_manager.step_client import NoReply, StepClient, StepReply
from process_manager.step_dispatcher import StepDispatcher
from process_manager.store import SagaStore
from runtime import jetstream
from runtime.process.settings import Settings
from tests.support.harness.waiting import until

Call = tuple[str, str]
"""An order, and the kind of a step of its fulfilment."""


class Ended(BaseException):
    """The manager is no more; nobody is told anything."""


class Breaking(StepClient):
    """Really calls the servers; what then happens to the answer is up to the test."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lose: dict[Call, int] = {}
        self._end: set[Call] = set()
        self._refuse: set[Call] = set()
        self.lost: set[Call] = set()
        self.ended: set[Call] = set()
        self.end = asyncio.Event()

    def lose(self, order: str, step: str) -> None:
        """Lose the first two answers to a step."""
        self._lose[order, step] = 2

    def end_after(self, order: str, step: str) -> None:
        """End the manager once a step is done and before it is told."""
        self._end.add((order, step))

    def refuse(self, order: str, step: str) -> None:
        """Refuse a step, which is not sent then."""
        self._refuse.add((order, step))

    async def call(self, step: DueStep, traceparent: str | None) -> StepReply:
        key = step.id, step.step.partition("-")[0]
        if key in self._refuse:
            return StepReply(reason="WILL_NOT")
        reply = await super().call(step, traceparent)
        if self._lose.get(key, 0):
            self._lose[key] -= 1
            self.lost.add(key)
            raise NoReply("lost on the way")
        if key in self._end:
            self._end.remove(key)
            self.ended.add(key)
            self.end.set()
            raise Ended
        return reply


@asynccontextmanager
async def managed(settings: Settings, caller: Breaking) -> AsyncIterator[SagaReader]:
    """Run a manager after the other, each until it ends; yield what reads their sagas."""
    store = SagaStore(settings.database_url)
    async with await jetstream.connect(settings.nats_url, "test") as nats:
        running = asyncio.create_task(_one_after_the_other(nats, store, caller))
        yield SagaReader(store.engine)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    await store.close()
    await caller.close()


async def _one_after_the_other(nats: jetstream.Connection, store: SagaStore, caller: Breaking) -> None:
    while True:
        caller.end.clear()
        engine, leases, over = Engine(store, SAGAS, history(nats)), Leases(store), asyncio.Event()
        parts = [
            asyncio.create_task(part.run(over))
            for part in (
                EventConsumer(nats, engine, store, leases),
                StepDispatcher(engine, store, caller, leases),
            )
        ]
        parts.append(asyncio.create_task(leases.keep(over)))
        try:
            await caller.end.wait()
        finally:
            over.set()  # asyncio.wait_for of Python 3.11 may swallow a cancellation
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await leases.leave()  # as if they had run out


async def rests(sagas: SagaReader, order_id: str, status: str) -> None:
    """Wait until an order's fulfilment stands there with nothing under way."""
    seen = ""

    async def is_there() -> bool:
        nonlocal seen
        found = await sagas.find("fulfilment.fulfilment", order_id)
        seen = found.row.status if found else ""
        return found is not None and seen == status and all(step.outcome for step in found.steps)

    try:
        await until(is_there, 60)
    except AssertionError:
        raise AssertionError(f"{order_id} is {seen}, not {status}") from None
