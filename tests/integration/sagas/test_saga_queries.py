"""How fulfilments go, asked of the process manager's own rows on the real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from diptych.fulfilment.v1 import query_service_pb2 as protocol
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1 import events_pb2 as happened
from diptych.ordering.v2 import events_pb2 as happened_v2
from sqlalchemy import text

from contracts import consistency_tokens
from contracts.envelope import RecordedEvent
from contracts.incarnations import after
from process_manager import freshness
from process_manager.due_work import NO_CHECKPOINT
from process_manager.engine import Engine
from process_manager.freshness import Freshness
from process_manager.saga_reader import SagaReader
from process_manager.sagas.fulfilment import FULFILMENT
from process_manager.sagas.fulfilment.queries import get_fulfilment, list_fulfilments
from process_manager.step_client import StepReply
from process_manager.store import SagaStore
from runtime.grpc.rpc_error import RpcError
from tests.integration.sagas.test_sagas import EVERYTHING, recorded_as

INCARNATION = after()


class Orders:
    """Fulfilments of orders without lines, told by hand."""

    def __init__(self, store: SagaStore) -> None:
        self.store, self.sagas = store, SagaReader(store.engine)
        self.engine = Engine(store, [FULFILMENT], self._history)
        self._place = NO_CHECKPOINT

    async def _history(self, _: str) -> Sequence[RecordedEvent]:
        return []

    async def hear(self, order_id: str, message: Any, version: int = 1) -> None:
        old, self._place = self._place, ("epoch", self._place[1] + 1)
        event = recorded_as(f"ordering.order.{order_id}", message, version)
        await self.engine.receive_events(FULFILMENT, 0, [event], old, self._place)

    async def position(self, order_id: str) -> None:
        message = happened_v2.OrderPlaced(order_id=order_id, customer_id="ada", account_id="a-1")
        message.placed_at.GetCurrentTime()
        await self.hear(order_id, message)

    async def answer(self, order_id: str, reply: StepReply) -> None:
        (step,) = [step for step in await self.store.due_steps(EVERYTHING, 100) if step.id == order_id]
        await self.engine.record_reply(step, reply)

    async def get(self, order_id: str) -> Fulfilment:
        response = await get_fulfilment(self.sagas, protocol.GetFulfilmentRequest(order_id=order_id))
        return response.fulfilment

    async def list(self, **request: Any) -> list[str]:
        """Return the ids on all pages, two on each."""
        found, token = [], ""
        while True:
            asked = protocol.ListFulfilmentsRequest(page_size=2, page_token=token, **request)
            page = await list_fulfilments(self.sagas, asked)
            found += [one.order_id for one in page.fulfilments]
            if not (token := page.next_page_token):
                return found

    async def set_due(self, order_id: str, minutes: int) -> None:
        async with self.store.engine.begin() as connection:
            due = text("UPDATE sagas SET due_at = now() + make_interval(mins => :minutes) WHERE id = :id")
            await connection.execute(due, {"minutes": minutes, "id": order_id})


@pytest.fixture
async def orders(database_url: str) -> AsyncIterator[Orders]:
    store = SagaStore(database_url)
    yield Orders(store)
    await store.close()


async def test_a_fulfilment_tells_its_steps_and_what_it_waits_for(orders: Orders) -> None:
    await orders.position("o-1")
    waiting = await orders.get("o-1")
    assert (waiting.state, waiting.waiting_for) == (Fulfilment.STATE_PREPARING, "an answer to assess")
    assert waiting.due_time.ToDatetime() - waiting.state_start_time.ToDatetime() == timedelta(minutes=15)
    await orders.answer("o-1", StepReply(reason="READ_MODEL_LOST"))
    await orders.answer("o-1", StepReply())  # it is held, for somebody to look at
    held = await orders.get("o-1")
    assert (held.state, held.waiting_for) == (Fulfilment.STATE_IN_REVIEW, "its approval or rejection")
    assert held.suspicion == "it could not be assessed: READ_MODEL_LOST"
    assert [(step.name, step.outcome, bool(step.request_id)) for step in held.steps] == [
        ("assess", "READ_MODEL_LOST", False),
        ("hold_order-1", "OK", True),
    ]
    assert all(step.HasField("answer_time") and step.tries == 1 for step in held.steps)
    assert held.state_start_time.ToDatetime() > waiting.state_start_time.ToDatetime()


async def test_a_fulfilment_that_needs_an_operator_is_overdue_at_once(orders: Orders) -> None:
    await orders.position("o-1")
    await orders.hear("o-1", happened.OrderConfirmed(order_id="o-1"), 2)
    await orders.answer("o-1", StepReply(reason="READ_MODEL_LOST"))
    await orders.answer("o-1", StepReply(reason="STOCK_INSUFFICIENT"))
    found = await orders.get("o-1")
    assert (found.state, found.blocked_reason) == (
        Fulfilment.STATE_CONFIRMED,
        "confirmed, but STOCK_INSUFFICIENT",
    )
    assert found.due_time == found.state_start_time


async def test_nobodys_fulfilment_is_not_found(orders: Orders) -> None:
    with pytest.raises(RpcError) as refused:
        await orders.get("nobody")
    assert refused.value.reason == "FULFILMENT_NOT_FOUND"


async def test_overdue_fulfilments_come_first_and_those_that_are_never_due_last(orders: Orders) -> None:
    for number in range(7):
        await orders.position(f"o-{number}")
    for number, minutes in ((3, -1), (5, -30), (1, 4), (0, 2)):
        await orders.set_due(f"o-{number}", minutes)
    for number in (6, 2):  # cancelled before anything was done, so they have ended
        await orders.hear(f"o-{number}", happened.OrderCancelled(order_id=f"o-{number}"), 2)
        await orders.answer(f"o-{number}", StepReply(reason="READ_MODEL_LOST"))
    assert await orders.list() == ["o-5", "o-3", "o-0", "o-1", "o-4", "o-2", "o-6"]
    assert await orders.list(state=Fulfilment.STATE_PREPARING) == ["o-5", "o-3", "o-0", "o-1", "o-4"]
    assert await orders.list(state=Fulfilment.STATE_CANCELLED) == ["o-2", "o-6"]
    open_ = await orders.sagas.page(FULFILMENT.name, open_only=True, limit=10)
    assert [row.id for row in open_] == ["o-5", "o-3", "o-0", "o-1", "o-4"]
    assert await orders.sagas.counts() == {FULFILMENT.name: (5, 2, 0)}


async def test_a_page_token_of_another_list_is_refused(orders: Orders) -> None:
    for number in range(3):
        await orders.position(f"o-{number}")
    asked = protocol.ListFulfilmentsRequest(page_size=2)
    token = (await list_fulfilments(orders.sagas, asked)).next_page_token
    other = protocol.ListFulfilmentsRequest(state=Fulfilment.STATE_PREPARING, page_token=token)
    with pytest.raises(RpcError) as refused:
        await list_fulfilments(orders.sagas, other)
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


def fresh(orders: Orders, life: str = INCARNATION) -> Freshness:
    async def incarnation() -> str:
        return life

    return Freshness(orders.sagas, incarnation)


async def test_a_token_waits_until_its_event_was_heard(orders: Orders) -> None:
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 1, "banking.account.a-1": 9})
    waiting = asyncio.create_task(fresh(orders).reached(FULFILMENT, token, 30))
    with pytest.raises(RpcError) as behind:
        await fresh(orders).reached(FULFILMENT, token, freshness.RESERVE)
    assert (behind.value.reason, waiting.done()) == ("VIEW_BEHIND", False)
    await orders.position("o-1")
    await asyncio.wait_for(waiting, 30)


@pytest.mark.parametrize(("others", "reason"), [(-1, "VIEW_REBUILDING"), (1, "TOKEN_OUTDATED")])
async def test_a_token_of_another_life_of_the_database_is_refused(
    orders: Orders, others: int, reason: str
) -> None:
    later = after(INCARNATION)
    known, life = (later, INCARNATION) if others < 0 else (INCARNATION, later)
    with pytest.raises(RpcError) as refused:
        await fresh(orders, life).reached(FULFILMENT, consistency_tokens.mint(known, {}), 30)
    assert refused.value.reason == reason
