"""The demo's second part: stock, money, and orders that a process manager fulfils."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

import grpc
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub as BankingStub
from diptych.banking.v1.query_service_pb2_grpc import QueryServiceStub as BankingQueriesStub
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment
from diptych.fulfilment.v1.query_service_pb2_grpc import QueryServiceStub as FulfilmentStub
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import query_service_pb2 as inventory_queries
from diptych.inventory.v1.command_service_pb2_grpc import CommandServiceStub as InventoryStub
from diptych.inventory.v1.query_service_pb2_grpc import QueryServiceStub as InventoryQueriesStub
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import OrderLine
from google.type.money_pb2 import Money

from devstack.demo.narration import Unexpected, checked, expect, say, step
from devstack.demo.requests import amount, order_of
from devstack.processes import Process
from devstack.stack import Stack
from operations.processes import PROCESS_MANAGER

SCOPES = (
    *("ordering.write", "ordering.review", "inventory.write", "inventory.read"),
    *("banking.write", "banking.read", "fulfilment.read"),
)
PATIENCE = 30.0
"""Seconds that something has to come about."""
PRICES = {"lamp-1": (19, 990_000_000), "desk-1": (90, 0), "vase-1": (60, 0)}
RECEIVED = {"lamp-1": 100, "desk-1": 4, "vase-1": 1}
FUNDED = {"a-1": 2_000, "b-1": 100, "c-1": 20_000, "d-1": 5_000}


@dataclass(frozen=True)
class Case:
    """An order of the demo, and what should become of it."""

    customer: str
    account_id: str
    pieces: Mapping[str, int]
    ends: str
    why: str = ""


CASES = (
    Case("ada", "a-1", {"lamp-1": 2}, "CONFIRMED"),
    Case("ada", "a-1", {"desk-1": 1}, "CONFIRMED"),
    Case("cyd", "c-1", {"lamp-1": 3}, "CONFIRMED"),
    Case("cyd", "c-1", {"desk-1": 1}, "CONFIRMED"),
    Case("cyd", "c-1", {"lamp-1": 1, "desk-1": 1}, "CONFIRMED"),
    Case("ada", "a-1", {"desk-1": 5}, "REJECTED", "STOCK_INSUFFICIENT"),
    Case("cyd", "c-1", {"vase-1": 2}, "REJECTED", "STOCK_INSUFFICIENT"),
    Case("bob", "b-1", {"lamp-1": 6}, "REJECTED", "FUNDS_INSUFFICIENT"),
    Case("bob", "b-1", {"lamp-1": 7}, "REJECTED", "FUNDS_INSUFFICIENT"),
    Case("dan", "d-1", {"lamp-1": 60}, "IN_REVIEW", "its total is 1199 EUR and its address is new"),
)
CANCELLED, SHIPPED, ODD = 1, 2, 9
"""Which of them is cancelled later, which is shipped, and which looks like fraud."""

STOCK = {"lamp-1": (96, 65), "desk-1": (4, 2), "vase-1": (1, 0)}
"""What is on hand in the end, and how much of it is reserved. Four lamps were shipped, one of them before."""
MONEY = {
    "a-1": ("1980.01 EUR", "79.96 EUR"),
    "b-1": ("100.00 EUR", "0.00 EUR"),
    "c-1": ("19940.03 EUR", "199.99 EUR"),
    "d-1": ("5000.00 EUR", "1199.40 EUR"),
}
"""Every account's balance in the end, and how much of it is held."""


class Company:
    """The steps, in their order.

    Args:
        stack: the stack, on which no process manager runs yet.
        earlier: the orders that there are already, each with the state that its fulfilment should come to.
    """

    def __init__(self, stack: Stack, earlier: Mapping[str, str]) -> None:
        self._stack = stack
        self._earlier = earlier
        self._bearer = (("authorization", f"Bearer {stack.token(*SCOPES)}"),)
        commands = grpc.aio.insecure_channel(stack.settings.command_address)
        queries = grpc.aio.insecure_channel(stack.settings.query_address)
        self._ordering: Any = CommandServiceStub(commands)
        self._inventory: Any = InventoryStub(commands)
        self._banking: Any = BankingStub(commands)
        self._stock: Any = InventoryQueriesStub(queries)
        self._accounts: Any = BankingQueriesStub(queries)
        self._fulfilments: Any = None

    async def run(self) -> None:
        """Do all steps.

        Raises:
            Unexpected: one went wrong.
        """
        step("Receive stock, and pay money into accounts")
        await self._equip()
        step("Start the process manager: it hears of the earlier orders first")
        await self._manage()
        step("Place ten orders; some lack stock or money, one looks like fraud")
        orders = [await self._place(case) for case in CASES]
        await self._show(orders)
        step("Approve the odd one; see what was done for it")
        await self._approve(orders[ODD])
        step("Ship an order, and cancel another")
        await self._go_on(orders[SHIPPED], orders[CANCELLED])
        step("Stock and balances, once everything has come to rest")
        await self._balance()

    async def _equip(self) -> None:
        for sku, quantity in RECEIVED.items():
            title = f"A {sku.partition('-')[0]}"
            await self._do(
                self._inventory.RegisterProduct,
                inventory.RegisterProductRequest(sku=sku, title=title, reorder_point=1),
            )
            delivery = inventory.ReceiveStockRequest(
                sku=sku, warehouse_id="w-1", quantity=quantity, purchase_order="po-1", delivery_note=sku
            )
            await self._do(self._inventory.ReceiveStock, delivery)
            say(f"{quantity:3} {sku}")
        for account_id, units in FUNDED.items():
            opening = banking.OpenAccountRequest(
                account_id=account_id, owner_id=account_id, currency_code="EUR"
            )
            await self._do(self._banking.OpenAccount, opening)
            paid = Money(currency_code="EUR", units=units)
            deposit = banking.DepositRequest(account_id=account_id, amount=paid, reference="to begin with")
            await self._do(self._banking.Deposit, deposit)
            say(f"{amount(paid):>12} in {account_id}")

    async def _manage(self) -> None:
        manager: Process = self._stack.add(PROCESS_MANAGER)
        await manager.start()
        self._fulfilments = FulfilmentStub(grpc.aio.insecure_channel(manager.address))
        for order_id, state in self._earlier.items():
            await self._rests(order_id, state)
            say(f"{order_id:36}  {state}")
        checked("shipped, confirmed and cancelled, as it found them")

    async def _place(self, case: Case) -> str:
        request = order_of(case.customer, 1)
        request.account_id = case.account_id
        del request.lines[:]
        for sku, quantity in case.pieces.items():
            units, nanos = PRICES[sku]
            price = Money(currency_code="EUR", units=units, nanos=nanos)
            request.lines.append(
                OrderLine(sku=sku, title=f"A {sku.partition('-')[0]}", quantity=quantity, unit_price=price)
            )
        return str((await self._do(self._ordering.PlaceOrder, request)).aggregate_id)

    async def _show(self, orders: Sequence[str]) -> None:
        for order_id, case in zip(orders, CASES, strict=True):
            found = await self._rests(order_id, case.ends)
            pieces = ", ".join(f"{quantity} {sku}" for sku, quantity in case.pieces.items())
            say(f"{case.customer}  {pieces:18} {case.ends:10} {found.rejection or found.suspicion}")
            if case.why not in (found.rejection, found.suspicion):
                raise Unexpected(f"not {case.why}: {found}")
        checked("five confirmed, four rejected with the reason, one waits for somebody")

    async def _approve(self, order_id: str) -> None:
        approval = ordering.ApproveOrderRequest(order_id=order_id)
        await self._do(self._ordering.ApproveOrder, approval)
        found = await self._rests(order_id, "CONFIRMED")
        for each in found.steps:
            took = each.answer_time.ToNanoseconds() - each.decide_time.ToNanoseconds()
            say(f"{each.name:14} {each.outcome:4} {took / 1e6:7.1f} ms  {each.method.rpartition('/')[2]}")
        names = [each.name.partition("-")[0] for each in found.steps]
        done = ["assess", "hold_order", "reserve", "hold_money", "firm_stock", "firm_money", "confirm"]
        expect(sorted(names) == sorted(done), "each step once", names)

    async def _go_on(self, shipped: str, cancelled: str) -> None:
        shipping = ordering.ShipOrderRequest(order_id=shipped, carrier="Swift", tracking_code="S-18")
        await self._do(self._ordering.ShipOrder, shipping)
        cancelling = ordering.CancelOrderRequest(order_id=cancelled, reason="changed my mind")
        await self._do(self._ordering.CancelOrder, cancelling)
        for order_id, state in ((shipped, "FULFILLED"), (cancelled, "CANCELLED")):
            found = await self._rests(order_id, state)
            say(f"{order_id:36}  {state:10} {', '.join(each.name for each in found.steps[-2:])}")
        checked("goods and money have left, or are free again")

    async def _balance(self) -> None:
        stock = await _until(self._levels, STOCK)
        for sku, (on_hand, reserved) in stock.items():
            say(f"{sku:8} {on_hand:4} on hand, {reserved:3} of them reserved")
        money = await _until(self._balances, MONEY)
        for account_id, (balance, held) in money.items():
            say(f"{account_id:8} {balance:>13}, {held:>12} of it held")
        expect((stock, money) == (STOCK, MONEY), "what the orders leave, and nothing else", (stock, money))

    async def _levels(self) -> dict[str, tuple[int, int]]:
        asked = {sku: inventory_queries.GetStockRequest(sku=sku) for sku in STOCK}
        found = {sku: await self._ask(self._stock.GetStock, request) for sku, request in asked.items()}
        return {sku: (stock.on_hand, stock.reserved) for sku, stock in found.items()}

    async def _balances(self) -> dict[str, tuple[str, str]]:
        asked = {id_: banking_queries.GetAccountRequest(account_id=id_) for id_ in MONEY}
        found = {id_: await self._ask(self._accounts.GetAccount, request) for id_, request in asked.items()}
        return {id_: (amount(one.account.balance), amount(one.account.held)) for id_, one in found.items()}

    async def _rests(self, order_id: str, state: str) -> Fulfilment:
        """Return an order's fulfilment once it stands there with nothing under way."""
        found = Fulfilment()

        async def status() -> str:
            nonlocal found
            try:
                asked = fulfilment.GetFulfilmentRequest(order_id=order_id)
                found = (await self._ask(self._fulfilments.GetFulfilment, asked)).fulfilment
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                return "not heard of"
            under_way = any(not each.outcome for each in found.steps)
            return Fulfilment.State.Name(found.state).removeprefix("STATE_") + ("..." if under_way else "")

        if (now := await _until(status, state)) != state:
            raise Unexpected(f"order {order_id} is not {state}, but {now}: {found}")
        return found

    async def _do(self, method: Any, request: Any) -> Any:
        """Send a command; return its receipt."""
        request.request_id = str(uuid4())
        return (await method(request, metadata=self._bearer)).receipt

    async def _ask(self, method: Any, request: Any) -> Any:
        return await method(request, metadata=self._bearer)


async def _until(look: Callable[[], Awaitable[Any]], wanted: Any) -> Any:
    """Return what is seen once it is what is wanted, or what it still is when patience ends."""
    ends = monotonic() + PATIENCE
    while (seen := await look()) != wanted and monotonic() < ends:
        await asyncio.sleep(0.05)
    return seen
