"""What operators see of events, states and views: personal fields need a scope of their own."""

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.dead_letters_pb2 import EventContent
from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from contracts.generations import GenerationRecord, encode_record
from contracts.personal_fields import MASK
from devstack.stack import Stack
from projector.projections.ordering.order import ORDERS
from tests.support.builders.personal_events import NAME
from tests.support.harness.caller import Caller
from tests.support.harness.recorder import ADD_EVENT, encode_metadata
from tests.support.harness.rpc_failure import reason_of

STREAM = "ordering.order.o-1"
NONE, MASKED, FULL = (
    EventContent.EVENT_CONTENT_NONE,
    EventContent.EVENT_CONTENT_UNSPECIFIED,
    EventContent.EVENT_CONTENT_FULL,
)


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    return shared_stack


@pytest.fixture
async def order(stack: Stack, database: Any) -> None:
    """An order with an address and a reason of cancellation: its events, and its views in two generations."""
    placed = events.OrderPlaced(order_id="o-1", customer_id="c-1", warehouse_id="w-1")
    placed.personal.shipping_address.recipient = NAME
    cancelled = events.OrderCancelled(order_id="o-1", reason=NAME)
    for version, event in enumerate((placed, cancelled), 1):
        name, metadata = event.DESCRIPTOR.full_name, encode_metadata(actor="alice")
        now, data = datetime.now(UTC), event.SerializeToString()
        await database.execute(ADD_EVENT, STREAM, version, name, data, metadata, now)
    view = ORDERS.view
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.flushdb()
        await redis.hset(view.generations, "2.1", encode_record(GenerationRecord(1)))
        for number, generation in enumerate((view, view.at("2.1"))):
            shown = Order(order_id="o-1", cancel_reason=f"{NAME} {number}")
            shown.shipping_groups.add(shipping_group_id=f"g-{number}").shipping_address.recipient = NAME
            await redis.set(generation.ready, "incarnation")
            await redis.hset(generation.key("o-1"), mapping={"version": 2, "data": shown.SerializeToString()})


ASKED = [
    pytest.param(lambda content: protocol.ListEventsRequest(content=content), id="ListEvents"),
    pytest.param(
        lambda content: protocol.ListEventsRequest(stream=STREAM, content=content), id="of a stream"
    ),
    pytest.param(
        lambda content: protocol.TailEventsRequest(after_position=0, content=content), id="TailEvents"
    ),
    pytest.param(lambda content: protocol.ExportEventsRequest(content=content), id="ExportEvents"),
    pytest.param(lambda content: protocol.GetStateRequest(stream=STREAM, content=content), id="GetState"),
    pytest.param(
        lambda content: protocol.CompareGenerationsRequest(projection="ordering.order", content=content),
        id="CompareGenerations",
    ),
]


async def ask(caller: Caller, request: Any) -> str:
    """Return the response as text; of a stream, that of its last message, or of a tail's first."""
    text = ""
    if not request.DESCRIPTOR.name.startswith(("Tail", "Export", "Compare")):
        return str(await caller.query(request))
    async for response in caller.watch(request):
        text = str(response)
        if isinstance(request, protocol.TailEventsRequest):
            break
    return text


@pytest.mark.parametrize("create", ASKED)
async def test_personal_fields_need_their_scope(
    operator: Caller, confidant: Caller, order: None, create: Any
) -> None:
    shown = {content: await ask(confidant, create(content)) for content in (NONE, MASKED, FULL)}
    assert [NAME in shown[content] for content in (NONE, MASKED, FULL)] == [False, False, True], shown
    assert (MASK in shown[NONE], MASK in shown[MASKED], MASK in shown[FULL]) == (False, True, False)
    assert "o-1" in shown[MASKED]
    assert await ask(operator, create(MASKED)) == shown[MASKED]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(operator, create(FULL))
    assert reason_of(caught.value) == "SCOPE_MISSING"


async def test_a_switch_records_no_personal_data(stack: Stack, order: None, database: Any) -> None:
    operator = Caller(stack, "operations.act", "operations.personal")
    request = protocol.SwitchGenerationRequest(projection="ordering.order", force=True, reason="a test")
    shown = [str(response) async for response in operator.watch(request)][-1]
    await operator.close()
    (recorded,) = await database.fetchrow("SELECT comparison::text FROM projection_switches")
    for text in (shown, recorded):
        assert (NAME in text, MASK in text) == (False, True)
