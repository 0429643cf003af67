"""Answers, events, timers and people's decisions meet on real servers: orders end as people decided."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.types_pb2 import Order

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROCESS_MANAGER, RELAY
from process_manager.dispatch.step_client import StepReply
from process_manager.postgres.due_work import DueStep
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.harness.invariants import verify_stack
from tests.support.harness.process_managers import FaultyClient, run_managers
from tests.support.harness.trade import PRICE, Trade
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long
SUSPICIOUS = 5_001
"""A total in euros that a person has to approve."""
ORDERS = 5


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path_factory.mktemp("verdicts"), process_managers=1) as stack:
        yield stack


class SlowClient(FaultyClient):
    """Sends confirmations only when the test permits it, as if they took so long on their way."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.on_their_way: set[str] = set()
        self.permitted = asyncio.Event()

    async def call(self, step: DueStep, traceparent: str | None, **options: Any) -> StepReply:
        if step.step.startswith("confirm-"):
            self.on_their_way.add(step.id)
            await self.permitted.wait()
        return await super().call(step, traceparent, **options)


@asynccontextmanager
async def run_slow_manager(stack: Stack) -> AsyncIterator[SlowClient]:
    """Replace the process manager of the stack by one in this process."""
    (manager,) = stack.of(PROCESS_MANAGER)
    await manager.kill()
    client = SlowClient(stack.settings)
    try:
        async with run_managers(stack.settings, client):
            yield client
    finally:
        await manager.start()


async def execute(stack: Stack, statement: str, *arguments: object) -> str:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def expire_timers(stack: Stack, orders: list[str]) -> None:
    """Let the times of these orders' fulfilments be up, as if the time had passed."""
    statement = (
        "UPDATE saga_timers SET due_at = now() - interval '1 day' WHERE saga = $1 AND id = ANY ($2::text[])"
    )
    changed = await execute(stack, statement, FULFILMENT.name, orders)
    assert changed == f"UPDATE {len(orders)}"


async def count_timers(stack: Stack, orders: list[str], condition: str = "true") -> int:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        query = "SELECT count(*) FROM saga_timers WHERE saga = $1 AND id = ANY ($2::text[]) AND "
        query += condition
        return int(await connection.fetchval(query, FULFILMENT.name, orders))
    finally:
        await connection.close()


async def wait_for_ends(trade: Trade, orders: list[str], end: str) -> Counter[tuple[str, str]]:
    """Wait until all orders have come to this end; count their states and why they are blocked."""
    ends: Counter[tuple[str, str]] = Counter()

    async def have_all_ended() -> bool:
        shown = [each for order in orders if (each := await trade.get_fulfilment(order))]
        states = [Fulfilment.State.Name(each.state).removeprefix("STATE_") for each in shown]
        ends.clear()
        ends.update(zip(states, (each.blocked_reason for each in shown), strict=True))
        return ends == {(end, ""): len(orders)}

    with suppress(AssertionError):  # the counts say more than that the time is up
        await until(have_all_ended, 30)
    return ends


@pytest.mark.parametrize("judged", ["after the reply", "before the reply"])
async def test_a_timer_that_fires_while_orders_are_confirmed_changes_nothing(
    stack: Stack, trade: Trade, judged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if judged == "before the reply":  # the bound of the wait has passed
        monkeypatch.setattr("process_manager.dispatch.preceding_inputs.MAX_WAIT", 0.0)
    sku, account = await trade.create_product(3 * ORDERS), await trade.open_account(PRICE * ORDERS)
    async with run_slow_manager(stack) as client:
        orders = [await trade.place_order(sku, account) for _ in range(ORDERS)]

        async def are_on_their_way() -> bool:
            return client.on_their_way == set(orders)

        await until(are_on_their_way, 60)
        await expire_timers(stack, orders)

        async def have_fired() -> bool:
            return await count_timers(stack, orders) == 0

        if judged == "before the reply":
            await until(have_fired)
        client.permitted.set()
        await until(have_fired)  # or were cancelled by the confirmation
    for order in orders:
        await trade.ship(order)
    assert await wait_for_ends(trade, orders, "FULFILLED") == {("FULFILLED", ""): ORDERS}
    await trade.wait_for_stock(sku, (0, 0))
    await trade.wait_for_account(account, (0, 0))
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


@pytest.mark.parametrize("relay_is_away", [False, True])
async def test_orders_approved_while_the_manager_was_away_for_days_are_confirmed(
    stack: Stack, trade: Trade, relay_is_away: bool
) -> None:
    (manager,), (relay,) = stack.of(PROCESS_MANAGER), stack.of(RELAY)
    sku, account = await trade.create_product(3 * ORDERS), await trade.open_account(SUSPICIOUS * ORDERS)
    orders = [await trade.place_order(sku, account, total=SUSPICIOUS) for _ in range(ORDERS)]
    for order in orders:
        await trade.wait_for_state(order, "IN_REVIEW")
    await manager.kill()
    if relay_is_away:
        await relay.kill()
    for order in orders:
        await trade.caller.execute(ordering.ApproveOrderRequest(order_id=order))
    await expire_timers(stack, orders)
    await manager.start()
    if relay_is_away:

        async def are_waiting() -> bool:
            return await count_timers(stack, orders, "postponed_to IS NOT NULL") == ORDERS

        await until(are_waiting)
        await relay.start()
    assert await wait_for_ends(trade, orders, "CONFIRMED") == {("CONFIRMED", ""): ORDERS}
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def test_no_order_is_lost_that_a_program_approves_as_soon_as_a_watch_shows_it_held(
    stack: Stack, trade: Trade
) -> None:
    count = 240
    sku, account = await trade.create_product(3 * count), await trade.open_account(SUSPICIOUS * count)
    places = asyncio.Semaphore(24)

    async def approve_when_held() -> str:
        async with places:
            order = await trade.place_order(sku, account, total=SUSPICIOUS)
            await trade.watch_until(order, Order.STATE_HELD)
            await trade.caller.execute(ordering.ApproveOrderRequest(order_id=order))
            return order

    orders = await asyncio.gather(*(approve_when_held() for _ in range(count)))
    assert await wait_for_ends(trade, orders, "CONFIRMED") == {("CONFIRMED", ""): count}
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
