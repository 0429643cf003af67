"""Orders placed while no process manager runs are judged as when they were placed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from diptych.ordering.v1.command_service_pb2 import ConfirmOrderRequest, RejectOrderRequest
from google.type.money_pb2 import Money

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROCESS_MANAGER
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.shop import order_of
from tests.support.harness.trade import SCOPES, Trade

ENDS = ("CONFIRMED", "IN_REVIEW", "REJECTED")


class Customers:
    """Customers who place orders of one piece, all paid by one account."""

    def __init__(self, trade: Trade, sku: str, account_id: str) -> None:
        self._trade, self._sku, self._account_id = trade, sku, account_id

    async def place(self, customer: str, units: int) -> str:
        """Place an order for a price in whole euros; return its id."""
        request = order_of(customer, order_id=uuid4().hex)
        request.account_id = self._account_id
        request.lines[0].sku, request.lines[0].quantity = self._sku, 1
        request.lines[0].unit_price.CopyFrom(Money(currency_code="EUR", units=units))
        return await self._trade.place(request)

    async def place_at_once(self, customer: str, units: int, count: int) -> list[str]:
        return await asyncio.gather(*(self.place(customer, units) for _ in range(count)))

    async def confirm(self, order_id: str) -> None:
        await self._trade.caller.execute(ConfirmOrderRequest(order_id=order_id))

    async def reject(self, order_id: str) -> None:
        await self._trade.caller.execute(RejectOrderRequest(order_id=order_id, reason="fraud"))

    async def wait_for_ends(self, order_ids: Sequence[str]) -> list[str]:
        return [await self._trade.wait_for_state(order_id, *ENDS) for order_id in order_ids]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    stack = temporary_stack(tmp_path, command_servers=2)
    stack.add(PROCESS_MANAGER)
    async with stack:
        yield stack


@pytest.mark.long
async def test_orders_placed_during_an_outage_are_judged_as_when_they_were_placed(stack: Stack) -> None:
    caller = Caller(stack, *SCOPES)
    trade = Trade(caller)
    customers = Customers(trade, await trade.create_product(1_000), await trade.open_account(1_000_000))
    (manager,) = stack.of(PROCESS_MANAGER)
    await manager.kill()
    six = [await customers.place("six", 40) for _ in range(6)]
    at_once = await customers.place_at_once("at-once", 40, 6)
    large = await customers.place_at_once("large", 4_000, 4)
    fraud = await customers.place("fraud", 40)
    await customers.reject(fraud)
    after_fraud = await customers.place("fraud", 4_000)
    before_confirmation = await customers.place("known", 4_000)
    small = await customers.place("known", 40)
    await customers.confirm(small)
    after_confirmation = await customers.place("known", 4_000)
    await manager.start()
    ends = {
        "six": await customers.wait_for_ends(six),
        "at once": sorted(await customers.wait_for_ends(at_once)),
        "large": await customers.wait_for_ends(large),
        "after fraud": await customers.wait_for_ends([after_fraud]),
        "confirmed": await customers.wait_for_ends([before_confirmation, after_confirmation]),
    }
    print({name: dict(Counter(states)) for name, states in ends.items()})
    assert ends == {
        "six": ["CONFIRMED"] * 5 + ["IN_REVIEW"],
        "at once": ["CONFIRMED"] * 5 + ["IN_REVIEW"],
        "large": ["IN_REVIEW"] * 4,
        "after fraud": ["IN_REVIEW"],
        "confirmed": ["IN_REVIEW", "CONFIRMED"],
    }
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
    await caller.close()
