"""Explanations of what happens around orders, asked of the operations server of a whole stack."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.explanation_pb2 import Explanation
from diptych.ordering.v1 import command_service_pb2 as ordering

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER, RELAY
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.planted_events import plant_unknown_event
from tests.support.harness.shop import Shop
from tests.support.harness.trade import SCOPES, Trade
from tests.support.harness.waiting import until


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("explanations")
    async with temporary_stack(folder, process_managers=1, operations_servers=1) as stack:
        yield stack


@pytest.fixture
async def trade(stack: Stack) -> AsyncIterator[Trade]:
    caller = Caller(stack, *SCOPES)
    yield Trade(caller)
    await caller.close()


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, "operations.read", "operations.act")
    yield caller
    await caller.close()


async def explain(operator: Caller, subject: str, **moment: Any) -> Explanation:
    """Return the only explanation of a subject; that of the order if its fulfilment has the same id."""
    request = protocol.ExplainRequest(subject=subject, **moment)
    found = (await operator.query(request)).explanations
    (explanation,) = [each for each in found if not each.subject.startswith("fulfilment ")]
    assert all(entry.text and entry.kind and entry.HasField("time") for entry in explanation.entries)
    times = [entry.time.ToDatetime() for entry in explanation.entries]
    assert times == sorted(times)
    return explanation  # type: ignore[no-any-return]


def find_texts(
    explanation: Explanation, kind: "Explanation.Kind.ValueType", depth: int | None = None
) -> list[str]:
    return [
        entry.text for entry in explanation.entries if entry.kind == kind and depth in (None, entry.depth)
    ]


async def wait_for(operator: Caller, subject: str, condition: Callable[[Explanation], bool]) -> Explanation:
    """Return the explanation of a subject once it fulfils a condition."""
    explanation = Explanation()

    async def is_fulfilled() -> bool:
        nonlocal explanation
        explanation = await explain(operator, subject)
        return condition(explanation)

    try:
        await until(is_fulfilled, 30)
    except AssertionError:
        raise AssertionError(f"not so: {explanation}") from None
    return explanation


async def test_a_confirmed_order_is_explained_to_its_present_state(trade: Trade, operator: Caller) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    order = await trade.place_order(sku, account)
    await trade.wait_for_state(order, "CONFIRMED")
    explained = await wait_for(
        operator, order, lambda it: all(view.endswith(", the latest") for view in find_views(it))
    )
    assert explained.subject == f"order {order}"
    assert explained.summary.startswith("order confirmed at ")
    assert explained.summary.endswith("is CONFIRMED, waits for shipment")
    own = [entry.text.split(":")[0] for entry in explained.entries if not entry.depth]
    assert own[:4] == [
        "alice sent PlaceOrder",
        "order placed",
        "process-manager sent ConfirmOrder",
        "order confirmed",
    ]
    assert len(find_views(explained)) == 2
    steps = [text for text in find_texts(explained, Explanation.KIND_SAGA, 1) if " sent " in text]
    names = [step.split(" sent ")[1].split("-")[0] for step in steps]
    assert [name for name in names if name != "record"] == [
        *("assess", "reserve", "hold_money", "firm_stock", "firm_money", "confirm")
    ]
    assert all(": accepted at " in step for step in steps)
    effects = find_texts(explained, Explanation.KIND_EVENT, 2)
    assert {"stock reserved", "hold placed", "money held"} < {text.split(":")[0] for text in effects}
    everything = str(explained)
    assert "Main Street" not in everything
    assert "Ada" not in everything


def find_views(explanation: Explanation) -> list[str]:
    return find_texts(explanation, Explanation.KIND_VIEW, 0)


async def test_an_order_rejected_for_lack_of_money_is_explained(trade: Trade, operator: Caller) -> None:
    sku, poor = await trade.create_product(3), await trade.open_account(1)
    order = await trade.place_order(sku, poor)
    await trade.wait_for_state(order, "REJECTED")
    explained = await wait_for(operator, order, lambda it: it.summary.startswith("order rejected"))
    assert "its step hold_money-1 was rejected, FUNDS_INSUFFICIENT" in explained.summary
    (rejected,) = find_texts(explained, Explanation.KIND_REJECTED)
    assert rejected == (
        "process-manager sent PlaceHold: rejected, FUNDS_INSUFFICIENT"
        " (available 1.00 EUR, requested 30.00 EUR)"
    )


async def test_releases_lead_back_to_who_cancelled_the_order(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    order = await trade.place_order(sku, account)
    await trade.wait_for_state(order, "CONFIRMED")
    bob = Shop(stack, "bob")
    await bob.cancel(order)
    await bob.close()
    await trade.wait_for_state(order, "CANCELLED")
    explained = await explain(operator, order)
    assert "by CancelOrder of bob" in explained.summary
    assert "bob sent CancelOrder: accepted" in find_texts(explained, Explanation.KIND_ACCEPTED, 0)
    (released,) = [entry for entry in explained.entries if entry.text.startswith("stock released")]
    event = await explain(operator, released.reference)
    assert ": caused by ReleaseReservation of process-manager at " in event.summary
    led_to_it = [entry.text for entry in event.entries if entry.depth < 0]
    assert led_to_it[0] == "bob sent CancelOrder: accepted"
    assert led_to_it[1].startswith("order cancelled: ")
    assert led_to_it[2].startswith(f"fulfilment.fulfilment {order} sent release_stock-1 ")
    assert f" because of ordering.order.{order}@3: " in led_to_it[2]
    reserved = next(entry for entry in explained.entries if entry.text.startswith("stock reserved"))
    led_to_it = [
        entry.text for entry in (await explain(operator, reserved.reference)).entries if entry.depth < 0
    ]
    assert led_to_it[0] == "alice sent PlaceOrder: accepted"
    assert "changed my mind" not in str(explained) + str(event)
    placed = await explain(operator, order, version=1)
    assert placed.summary.startswith("as of ")
    assert not [entry for entry in placed.entries if entry.kind == Explanation.KIND_VIEW]
    assert not [text for text in find_texts(placed, Explanation.KIND_EVENT, 0) if "cancelled" in text]


@pytest.mark.long
async def test_a_step_without_an_answer_is_what_an_order_waits_for_until_it_is_aborted(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    (manager,), (server,) = stack.of(PROCESS_MANAGER), stack.of(COMMAND_SERVER)
    manager.child.freeze()
    order = await trade.place_order(sku, account)
    await server.kill()
    manager.child.thaw()
    try:
        explained = await wait_for(operator, order, lambda it: "no answer after" in str(it.entries))
        assert "waits for the reply to assess-v1" in explained.summary
        timers = [text for text in find_texts(explained, Explanation.KIND_SAGA) if text.startswith("timer ")]
        assert timers[0].startswith(f"timer deadline of fulfilment.fulfilment {order} fires at ")
        abort = protocol.AbortSagaRequest(saga=FULFILMENT.name, id=order, reason="the stock is lost")
        aborted = (await operator.query(abort)).saga
        assert aborted.operator_actions[0].operator == "alice"
        (listed,) = (await operator.query(protocol.ListSagasRequest(error="UNAVAILABLE", term=sku))).sagas
        assert listed.id == order
    finally:
        await server.start()
    await trade.wait_for_state(order, "REJECTED")
    explained = await explain(operator, order)
    refused = protocol.AbortSagaRequest(saga=FULFILMENT.name, id=order, reason="again")
    assert await operator.rejection_reason(refused) == "ACTION_NOT_POSSIBLE"
    assert find_texts(await explain(operator, order), Explanation.KIND_ACT, 0) == [
        f"alice asked for AbortSaga of {FULFILMENT.name} {order}: refused, ACTION_NOT_POSSIBLE; again"
    ]
    (act,) = find_texts(explained, Explanation.KIND_ACT, 1)
    assert act == f"alice asked for the abort of fulfilment.fulfilment {order}: the stock is lost"


async def test_an_order_waits_for_a_process_manager_and_for_a_relay(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, account = await trade.create_product(10), await trade.open_account(1_000)
    (manager,), (relay,) = stack.of(PROCESS_MANAGER), stack.of(RELAY)
    await manager.stop()
    try:
        first = await trade.place_order(sku, account)
        await wait_for(
            operator, first, lambda it: f"{FULFILMENT.name} has not received version 1 yet" in it.summary
        )
        await relay.stop()
        second = await trade.place_order(sku, account)
        assert "version 1 is not published yet" in (await explain(operator, second)).summary
    finally:
        await relay.start()
        await manager.start()
    for order in (first, second):
        await trade.wait_for_state(order, "CONFIRMED")
        await wait_for(operator, order, lambda it: " yet" not in it.summary)


async def test_deadlines_of_claims_are_explained(trade: Trade, operator: Caller) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    claim = await trade.claim_without_order(sku, account, timedelta(hours=1))
    hold = await wait_for(operator, f"banking.hold.{claim}", lambda it: "WATCHING" in it.summary)
    (timer,) = [text for text in find_texts(hold, Explanation.KIND_SAGA) if text.startswith("timer ")]
    assert timer.startswith(f"timer deadline of banking.hold_deadline {claim} fires at ")
    both = await operator.query(protocol.ExplainRequest(subject=claim))
    assert [each.subject for each in both.explanations] == [f"hold {claim}", f"reservation {claim}"]


async def test_requests_are_explained_whether_they_left_events_or_not(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    order = await trade.place_order(sku, account)
    await trade.wait_for_state(order, "CONFIRMED")
    placed = find_texts(await explain(operator, order), Explanation.KIND_ACCEPTED, 0)
    assert placed[0] == "alice sent PlaceOrder: accepted"
    reused = str(uuid4())
    ship = ordering.DeliverOrderRequest(request_id=reused, order_id=order)
    reason = await trade.caller.rejection_reason(ship)
    assert (
        await trade.caller.rejection_reason(
            ordering.ReturnOrderRequest(request_id=reused, order_id=order, reason="x")
        )
        == "REQUEST_ID_REUSED"
    )
    explained = await explain(operator, reused)
    assert f"DeliverOrder of alice for order {order}: rejected, {reason} at " in explained.summary
    assert [entry.kind for entry in explained.entries] == [
        Explanation.KIND_REJECTED,
        Explanation.KIND_REFUSED,
    ]
    assert "REQUEST_ID_REUSED" in explained.entries[1].text
    of_order = await explain(operator, order)
    (accepted,) = [entry for entry in of_order.entries if entry.text.startswith("alice sent PlaceOrder")]
    request = await explain(operator, accepted.reference)
    assert request.subject == f"request {accepted.reference} of alice"
    assert find_texts(request, Explanation.KIND_EVENT, 0)[0].startswith("order placed: ")
    assert any("sent reserve-1" in text for text in find_texts(request, Explanation.KIND_SAGA, 1))


async def test_a_call_that_was_refused_at_the_edge_is_explained_by_its_request_id(
    trade: Trade, operator: Caller
) -> None:
    invalid = ordering.CancelOrderRequest(request_id=str(uuid4()), order_id="o-1")
    assert await trade.caller.rejection_reason(invalid) == "REQUEST_INVALID"
    explained = await explain(operator, invalid.request_id)
    assert explained.summary.startswith("CancelOrder of alice: refused before it was decided at ")
    assert "REQUEST_INVALID (reason " in explained.summary
    assert [entry.kind for entry in explained.entries] == [Explanation.KIND_REFUSED]
    listed = await operator.query(protocol.ListRefusedCallsRequest(reason="REQUEST_INVALID"))
    assert any(each.details.get("request_id") == invalid.request_id for each in listed.refused_calls)


async def test_what_is_not_on_record_says_what_that_means(trade: Trade, operator: Caller) -> None:
    for subject in (str(uuid4()), "nothing", "ordering.order.nothing", "ordering.order.nothing@1", "a b"):
        request = protocol.ExplainRequest(subject=subject)
        assert await operator.rejection_reason(request) == "SUBJECT_NOT_FOUND", subject
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    order = await trade.place_order(sku, account)
    beyond = protocol.ExplainRequest(subject=order, version=1_000)
    assert await operator.rejection_reason(beyond) == "VERSION_NOT_REACHED"
    for days, reason in ((1, "TIME_IN_FUTURE"), (-1, "BEFORE_FIRST_EVENT")):
        other_time = protocol.ExplainRequest(subject=order)
        other_time.time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
        assert await operator.rejection_reason(other_time) == reason
    await trade.wait_for_state(order, "CONFIRMED")


async def test_views_that_cannot_be_read_cost_no_more_than_themselves(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    order = await trade.place_order(sku, account)
    await trade.wait_for_state(order, "CONFIRMED")
    redis = stack.servers["redis_url"].child
    redis.freeze()
    try:
        explained = await asyncio.wait_for(explain(operator, order), 15)
    finally:
        redis.thaw()
    (views,) = find_views(explained)
    assert views.startswith("the views cannot be read from Redis: ")
    assert explained.summary.endswith("is CONFIRMED, waits for shipment")


async def test_the_stack_is_consistent(stack: Stack) -> None:
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


# The last tests: the events that they plant are such that nothing can read.
async def test_a_parked_view_and_a_blocked_saga_say_what_to_do(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(1_000)
    order = await trade.place_order(sku, account)
    await trade.wait_for_state(order, "CONFIRMED")
    await plant_unknown_event(stack.settings.database_url, f"ordering.order.{order}")
    explained = await wait_for(
        operator, order, lambda it: "is parked" in it.summary and "blocked" in it.summary
    )
    parked = [
        view for view in find_views(explained) if view.startswith("ordering.order is parked at version 3")
    ]
    assert parked
    assert parked[0].endswith(f"to retry it: diptych projections retry ordering.order {order} --reason …")
    (state,) = [text for text in find_texts(explained, Explanation.KIND_SAGA, 1) if " is CONFIRMED" in text]
    assert f"diptych sagas retry {order} --saga fulfilment.fulfilment" in state
    (saga,) = (await operator.query(protocol.ListSagasRequest(blocked_only=True))).sagas
    assert (saga.id, saga.blocked_reason in state) == (order, True)
    retry = protocol.RetrySagaRequest(id=order, reason="the release can read it now")
    assert (await operator.query(retry)).saga.blocked_reason == saga.blocked_reason
    (act,) = find_texts(await explain(operator, order), Explanation.KIND_ACT, 1)
    assert act.endswith(": the release can read it now")
    (event,) = [text for text in find_texts(explained, Explanation.KIND_EVENT, 0) if "version 3" in text]
    assert event.startswith("order mystified: ")
    assert "is not an event of" in event


async def test_the_six_questions_of_an_operator_are_each_answered_by_one_call(
    stack: Stack, trade: Trade, operator: Caller
) -> None:
    sku, rich, poor = (
        await trade.create_product(30),
        await trade.open_account(1_000),
        await trade.open_account(1),
    )
    rejected = await trade.place_order(sku, poor)
    cancelled, blocked_order = [await trade.place_order(sku, rich) for _ in range(2)]
    await trade.wait_for_state(rejected, "REJECTED")
    await trade.wait_for_state(cancelled, "CONFIRMED")
    await trade.wait_for_state(blocked_order, "CONFIRMED")
    bob = Shop(stack, "bob")
    await bob.cancel(cancelled)
    await bob.close()
    await trade.wait_for_state(cancelled, "CANCELLED")

    # Is it healthy? How far behind is it?
    status = (await operator.query(protocol.GetStatusRequest())).status
    assert {process.health for process in status.processes} == {"SERVING"}, status.findings
    assert all(not projection.error for projection in status.projections)
    assert sum(projection.events_behind for projection in status.projections) < 1_000
    # Why was this order rejected?
    assert "was rejected, FUNDS_INSUFFICIENT" in (await explain(operator, rejected)).summary
    # Who cancelled it?
    assert "by CancelOrder of bob" in (await explain(operator, cancelled)).summary
    # Which command caused this event?
    event = await explain(operator, f"ordering.order.{cancelled}@1")
    assert ": caused by PlaceOrder of alice at " in event.summary
    # What is stuck, and what do I do?
    await plant_unknown_event(stack.settings.database_url, f"ordering.order.{blocked_order}")
    answer = await wait_for(operator, blocked_order, lambda it: " blocked: " in it.summary)
    assert f"when the cause is mended: diptych sagas retry {blocked_order} --saga" in answer.summary
    assert blocked_order in {
        saga.id for saga in (await operator.query(protocol.ListSagasRequest(blocked_only=True))).sagas
    }
