"""Queries about fulfilments, over the process manager's rows on the real PostgreSQL."""

from datetime import timedelta
from typing import Any

import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1.command_service_pb2 import HoldOrderResponse
from diptych.ordering.v2 import events_pb2 as events_v2

from process_manager.dispatch.step_client import StepReply
from process_manager.postgres.store import SagaStore
from process_manager.sagas.fulfilment import FULFILMENT
from process_manager.sagas.fulfilment.queries import create_service
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.saga_run import SagaRun, call, list_all, recorded_as


class Orders:
    """Fulfilments of orders without lines; the test delivers their events and replies."""

    def __init__(self, store: SagaStore) -> None:
        self.run = SagaRun(store, FULFILMENT)
        self.service = create_service(self.run.queries)

    async def deliver(self, order_id: str, message: Any, version: int = 1) -> None:
        await self.run.deliver(recorded_as(f"ordering.order.{order_id}", message, version))

    async def place(self, order_id: str) -> None:
        message = events_v2.OrderPlaced(order_id=order_id, customer_id="ada", account_id="a-1")
        message.placed_at.GetCurrentTime()
        await self.deliver(order_id, message)

    async def answer(self, order_id: str, reply: StepReply) -> None:
        (step,) = [step for step in await self.run.read_due_steps() if step.id == order_id]
        await self.run.engine.record_reply(step, reply)

    async def get(self, order_id: str) -> Fulfilment:
        fulfilment: Fulfilment = (await call(self.service, "GetFulfilment", order_id=order_id)).fulfilment
        return fulfilment

    async def list(self, **request: Any) -> list[str]:
        """Return the ids on all pages."""
        fulfilments = await list_all(self.service, "ListFulfilments", "fulfilments", **request)
        return [fulfilment.order_id for fulfilment in fulfilments]

    async def set_due(self, order_id: str, minutes: int) -> None:
        await self.run.query(
            f"UPDATE sagas SET due_at = now() + interval '{minutes} minutes' WHERE id = '{order_id}'"
        )


@pytest.fixture
def orders(store: SagaStore) -> Orders:
    return Orders(store)


async def test_a_fulfilment_shows_its_steps_and_the_reply_it_waits_for(orders: Orders) -> None:
    await orders.place("o-1")
    waiting = await orders.get("o-1")
    assert (waiting.state, waiting.waiting_for) == (Fulfilment.STATE_PREPARING, "the reply to assess-v1")
    assert waiting.due_time.ToDatetime() - waiting.state_start_time.ToDatetime() == timedelta(minutes=15)
    await orders.answer("o-1", StepReply(reason="READ_MODEL_LOST"))
    await orders.answer("o-1", StepReply(HoldOrderResponse(receipt=Receipt(version=2))))
    answered = await orders.get("o-1")
    assert (answered.state, answered.waiting_for) == (Fulfilment.STATE_PREPARING, "version 2 of the order")
    await orders.deliver("o-1", events.OrderHeld(order_id="o-1"), 2)
    held = await orders.get("o-1")
    assert (held.state, held.waiting_for) == (Fulfilment.STATE_IN_REVIEW, "approval or rejection")
    assert held.suspicion == "assessment failed: READ_MODEL_LOST"
    assert [(step.name, step.outcome, bool(step.request_id)) for step in held.steps] == [
        ("assess-v1", "READ_MODEL_LOST", True),
        ("hold_order-1", "OK", True),
    ]
    assert all(step.HasField("answer_time") and step.tries == 1 for step in held.steps)
    assert held.state_start_time.ToDatetime() > waiting.state_start_time.ToDatetime()


async def test_a_blocked_fulfilment_is_overdue_at_once(orders: Orders) -> None:
    await orders.place("o-1")
    await orders.deliver("o-1", events.OrderConfirmed(order_id="o-1"), 2)
    await orders.answer("o-1", StepReply(reason="READ_MODEL_LOST"))
    await orders.answer("o-1", StepReply(reason="STOCK_INSUFFICIENT"))
    fulfilment = await orders.get("o-1")
    assert (fulfilment.state, fulfilment.blocked_reason) == (
        Fulfilment.STATE_CONFIRMED,
        "confirmed, but STOCK_INSUFFICIENT",
    )
    assert fulfilment.due_time == fulfilment.state_start_time


async def test_an_unknown_fulfilment_is_not_found(orders: Orders) -> None:
    with pytest.raises(RpcError) as error:
        await orders.get("nobody")
    assert error.value.reason == "FULFILMENT_NOT_FOUND"


async def test_overdue_fulfilments_come_first_and_those_without_a_due_time_last(orders: Orders) -> None:
    for number in range(7):
        await orders.place(f"o-{number}")
    for number, minutes in ((3, -1), (5, -30), (1, 4), (0, 2)):
        await orders.set_due(f"o-{number}", minutes)
    for number in (6, 2):  # cancelled before any claim, so they have ended
        await orders.deliver(f"o-{number}", events.OrderCancelled(order_id=f"o-{number}"), 2)
        await orders.answer(f"o-{number}", StepReply(reason="READ_MODEL_LOST"))
    assert await orders.list() == ["o-5", "o-3", "o-0", "o-1", "o-4", "o-2", "o-6"]
    assert await orders.list(state=Fulfilment.STATE_PREPARING) == ["o-5", "o-3", "o-0", "o-1", "o-4"]
    assert await orders.list(state=Fulfilment.STATE_CANCELLED) == ["o-2", "o-6"]


async def test_a_page_token_of_another_list_is_rejected(orders: Orders) -> None:
    for number in range(3):
        await orders.place(f"o-{number}")
    token = (await call(orders.service, "ListFulfilments", page_size=2)).next_page_token
    with pytest.raises(RpcError) as error:
        await call(orders.service, "ListFulfilments", state=Fulfilment.STATE_PREPARING, page_token=token)
    assert error.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize(
    "change", ["state = '[]'", 'state = state || \'{"stock": "LENT"}\'', "status = 'PONDERING'"]
)
async def test_a_fulfilment_that_cannot_be_read_is_shown_as_such(orders: Orders, change: str) -> None:
    await orders.place("o-1")
    await orders.place("o-2")
    await orders.run.query(f"UPDATE sagas SET {change} WHERE id = 'o-1'")
    assert await orders.list() == ["o-1", "o-2"]
    shown = await orders.get("o-1")
    assert (shown.unreadable, bool(shown.blocked_reason), len(shown.steps)) == (True, True, 1)
    assert not (await orders.get("o-2")).unreadable
