"""Process managers in the test's own process, whose calls fail and which are killed at chosen steps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from contracts.key_ring import KeyRing
from process_manager.deadlines.deadlines import Deadlines
from process_manager.dispatch.preceding_inputs import PrecedingInputs
from process_manager.dispatch.step_client import OutcomeUnknown, StepClient, StepReply
from process_manager.dispatch.step_dispatcher import StepDispatcher
from process_manager.dispatch.timer_dispatcher import TimerDispatcher
from process_manager.engine import Engine
from process_manager.feeds.event_consumer import EventConsumer
from process_manager.feeds.stream_reads import read_stream_ends_from, read_stream_from
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.leases import Leases
from process_manager.postgres.due_work import DueStep
from process_manager.postgres.store import SagaStore
from process_manager.queries.saga_reader import SagaReader
from runtime import jetstream
from runtime.process.lifecycle import cancel_and_wait
from runtime.process.settings import Settings
from tests.support.harness.contexts import SAGAS
from tests.support.harness.waiting import until

Call = tuple[str, str]
"""The id of an order, and the kind of a step of its fulfilment."""


class Killed(BaseException):
    """Ends a call as if its process had been killed: no handler of Exception sees it."""


class FaultyClient(StepClient):
    """Calls the real servers, then loses replies or kills the manager as the test demands."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._replies_to_lose: dict[Call, int] = {}
        self._kill_after: set[Call] = set()
        self._rejected: set[Call] = set()
        self.lost: set[Call] = set()
        self.killed_after: set[Call] = set()
        self.kill = asyncio.Event()

    def lose_replies(self, order: str, step: str) -> None:
        """Lose the first two replies to a step."""
        self._replies_to_lose[order, step] = 2

    def kill_after(self, order: str, step: str) -> None:
        """Kill the manager once a step is executed, before its reply is recorded."""
        self._kill_after.add((order, step))

    def reject(self, order: str, step: str) -> None:
        """Reject a step instead of sending it."""
        self._rejected.add((order, step))

    async def call(self, step: DueStep, traceparent: str | None, **options: Any) -> StepReply:
        key = step.id, step.step.partition("-")[0]
        if key in self._rejected:
            return StepReply(reason="WILL_NOT")
        reply = await super().call(step, traceparent, **options)
        if self._replies_to_lose.get(key, 0):
            self._replies_to_lose[key] -= 1
            self.lost.add(key)
            raise OutcomeUnknown("lost by the test")
        if key in self._kill_after:
            self._kill_after.remove(key)
            self.killed_after.add(key)
            self.kill.set()
            raise Killed
        return reply


@asynccontextmanager
async def run_managers(settings: Settings, client: FaultyClient) -> AsyncIterator[SagaReader]:
    """Run managers one after the other, each until it is killed; yield a reader of their sagas."""
    store = SagaStore(settings.database_url)
    ring = KeyRing.parse(await asyncio.to_thread(Path(settings.keys).read_bytes))
    async with await jetstream.connect(settings.nats_url, "test", lambda: ring) as nats:
        task = asyncio.create_task(_run_in_turn(nats, store, client))
        yield SagaReader(store.engine)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await store.close()
    await client.close()


async def _run_in_turn(nats: jetstream.Connection, store: SagaStore, client: FaultyClient) -> None:
    while True:
        client.kill.clear()
        engine, leases, stopping = (
            Engine(store, SAGAS, read_stream_from(nats)),
            Leases(store, "ledger"),
            asyncio.Event(),
        )
        replayer, deadlines = StreamReplayer(engine, leases), Deadlines(engine, store)
        publication = jetstream.PublicationClock(nats)
        preceding = PrecedingInputs(
            engine.sagas, store, read_stream_ends_from(nats), tuple, partial(getattr, publication, "latest")
        )
        tasks = [
            asyncio.create_task(part.run(stopping))
            for part in (
                EventConsumer(nats, engine, store, leases, replayer, deadlines),
                replayer,
                StepDispatcher(engine, store, client, leases),
                TimerDispatcher(engine, store, leases, preceding, deadlines),
            )
        ]
        tasks += [asyncio.create_task(leases.run(stopping)), asyncio.create_task(publication.run())]
        try:
            await client.kill.wait()
        finally:
            stopping.set()
            await cancel_and_wait(*tasks)
            await leases.leave()  # as if they had expired
            await deadlines.close()


async def wait_for_status(sagas: SagaReader, order_id: str, status: str) -> None:
    """Wait until an order's fulfilment has this status and no pending step."""
    last_status = ""

    async def has_status() -> bool:
        nonlocal last_status
        details = await sagas.find("fulfilment.fulfilment", order_id)
        last_status = details.row.status if details else ""
        return details is not None and last_status == status and all(step.outcome for step in details.steps)

    try:
        await until(has_status, 60)
    except AssertionError:
        raise AssertionError(f"{order_id} is {last_status}, not {status}") from None
