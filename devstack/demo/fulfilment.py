"""The demo's part about fulfilment: stock, accounts, and orders that the process manager fulfils."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub as BankingStub
from diptych.banking.v1.query_service_pb2_grpc import QueryServiceStub as BankingQueriesStub
from diptych.catalogue.v1.query_service_pb2 import QuotedPrice, QuotePricesRequest
from diptych.catalogue.v1.query_service_pb2_grpc import QueryServiceStub as CatalogueQueriesStub
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment
from diptych.fulfilment.v1.query_service_pb2_grpc import QueryServiceStub as FulfilmentStub
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import query_service_pb2 as inventory_queries
from diptych.inventory.v1.command_service_pb2_grpc import CommandServiceStub as InventoryStub
from diptych.inventory.v1.query_service_pb2_grpc import QueryServiceStub as InventoryQueriesStub
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_OPENING
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import OrderLine
from diptych_client import Rejection, aio
from google.type.money_pb2 import Money

from devstack.demo.narration import UnexpectedResult, check, print_check, print_line, print_step
from devstack.demo.polling import poll
from devstack.demo.requests import format_amount, order_of
from devstack.stack import Stack
from operations.processes import PROCESS_MANAGER

SCOPES = (
    *("ordering.place", "ordering.review", "ordering.ship", "inventory.write", "inventory.read"),
    *(
        "banking.open",
        "banking.deposit",
        "banking.mandate",
        "banking.read",
        "fulfilment.read",
        "catalogue.quote",
    ),
    *("ordering.all", "banking.all", "fulfilment.all", "catalogue.all"),
)
DELIVERIES = {"lamp-1": 100, "desk-1": 4, "vase-1": 1}
DEPOSITS = {"a-1": 2_000, "b-1": 100, "c-1": 9_000, "d-1": 5_000}
OWNERS = {"a-1": "ada", "b-1": "bob", "c-1": "cyd", "d-1": "dan"}
FRIENDS_LIMIT = 100
"""Euros that a friend of Ada's may spend of her account."""


@dataclass(frozen=True)
class ExpectedOrder:
    """An order of the demo, with the expected state of its fulfilment and the reason for it."""

    customer: str
    account_id: str
    pieces: Mapping[str, int]
    final_state: str
    reason: str = ""


EXPECTED_ORDERS = (
    ExpectedOrder("ada", "a-1", {"lamp-1": 2}, "CONFIRMED"),
    ExpectedOrder("ada", "a-1", {"desk-1": 1}, "CONFIRMED"),
    ExpectedOrder("cyd", "c-1", {"lamp-1": 3}, "CONFIRMED"),
    ExpectedOrder("cyd", "c-1", {"desk-1": 1}, "CONFIRMED"),
    ExpectedOrder("cyd", "c-1", {"lamp-1": 1, "desk-1": 1}, "CONFIRMED"),
    ExpectedOrder("ada", "a-1", {"desk-1": 5}, "REJECTED", "STOCK_INSUFFICIENT"),
    ExpectedOrder("cyd", "c-1", {"vase-1": 2}, "REJECTED", "STOCK_INSUFFICIENT"),
    ExpectedOrder("bob", "b-1", {"lamp-1": 6}, "REJECTED", "FUNDS_INSUFFICIENT"),
    ExpectedOrder("bob", "b-1", {"lamp-1": 7}, "REJECTED", "FUNDS_INSUFFICIENT"),
    ExpectedOrder("dan", "d-1", {"lamp-1": 60}, "IN_REVIEW", "its total is 1199 EUR and its address is new"),
)
CANCELLED, SHIPPED, SUSPICIOUS = 1, 2, 9
"""The indices of the orders that are cancelled, shipped, and suspicious."""

STOCK = {"lamp-1": (96, 65), "desk-1": (4, 2), "vase-1": (1, 0)}
"""The final quantities on hand and reserved. Four lamps were shipped, one of them by `OrderingDemo`."""
MONEY = {
    "a-1": ("1980.01 EUR", "79.96 EUR"),
    "b-1": ("100.00 EUR", "0.00 EUR"),
    "c-1": ("8940.03 EUR", "199.99 EUR"),
    "d-1": ("5000.00 EUR", "1199.40 EUR"),
}
"""The final balance and held amount of every account."""


class FulfilmentDemo:
    """Stocks products, funds accounts, and places orders for the process manager.

    Args:
        stack: a stack without a process manager.
        previous_orders: existing orders, each with the expected state of its fulfilment.
        friend: the customer of these orders, who may order at the cost of Ada's account.
    """

    def __init__(self, stack: Stack, previous_orders: Mapping[str, str], friend: str) -> None:
        self._friend = friend
        self._previous_orders = previous_orders
        self._manager = stack.add(PROCESS_MANAGER)
        token = stack.token(*SCOPES)
        self._write = aio.connect(stack.settings.command_address, token=token, tls=stack.credentials or False)
        self._read = aio.connect(stack.settings.query_address, token=token, tls=stack.credentials or False)
        self._ordering: Any = CommandServiceStub(self._write.channel)
        self._inventory: Any = InventoryStub(self._write.channel)
        self._banking: Any = BankingStub(self._write.channel)
        self._catalogue: Any = CatalogueQueriesStub(self._read.channel)
        self._stock: Any = InventoryQueriesStub(self._read.channel)
        self._accounts: Any = BankingQueriesStub(self._read.channel)
        self._fulfilments: Any = FulfilmentStub(self._read.channel)

    async def run(self) -> None:
        """Run all steps.

        Raises:
            UnexpectedResult, Rejection, OutcomeUnknown: a step had another result.
        """
        async with self._write, self._read:
            print_step("Receive stock, and pay money into accounts")
            await self._supply()
            print_step("Start the process manager; it receives the earlier orders first")
            await self._start_manager()
            print_step(
                "Order a lamp for less than its price: without a quote, with one, and with a forged one"
            )
            await self._lower_a_price()
            print_step("Place ten orders at quoted prices; some lack stock or money, one is suspicious")
            orders = [await self._place(case) for case in EXPECTED_ORDERS]
            await self._show(orders)
            print_step("Approve the suspicious order, and watch its fulfilment")
            await self._approve(orders[SUSPICIOUS])
            print_step("Ship an order, and cancel another")
            await self._ship_and_cancel(orders[SHIPPED], orders[CANCELLED])
            print_step("Show stock and balances after all sagas have ended or are waiting")
            await self._check_levels()

    async def _supply(self) -> None:
        for sku, quantity in DELIVERIES.items():
            title = f"A {sku.partition('-')[0]}"
            await self._write.send(
                self._inventory.RegisterProduct,
                inventory.RegisterProductRequest(sku=sku, title=title, reorder_point=1),
            )
            delivery = inventory.ReceiveStockRequest(
                sku=sku,
                warehouse_id="w-1",
                quantity=quantity,
                reason=RECEIPT_REASON_OPENING,
                delivery_note=sku,
            )
            await self._write.send(self._inventory.ReceiveStock, delivery)
            print_line(f"{quantity:3} {sku}")
        for account_id, units in DEPOSITS.items():
            opening = banking.OpenAccountRequest(
                account_id=account_id, owner_id=OWNERS[account_id], currency_code="EUR"
            )
            await self._write.send(self._banking.OpenAccount, opening)
            amount = Money(currency_code="EUR", units=units)
            deposit = banking.DepositRequest(account_id=account_id, amount=amount, reference="first deposit")
            await self._write.send(self._banking.Deposit, deposit)
            print_line(f"{format_amount(amount):>12} in {account_id}, {OWNERS[account_id]}'s")
        await self._grant_mandate()

    async def _grant_mandate(self) -> None:
        limit = Money(currency_code="EUR", units=FRIENDS_LIMIT)
        mandate = banking.GrantMandateRequest(
            account_id="a-1", customer_id=self._friend, order_limit=limit, total_limit=limit
        )
        mandate.until.FromDatetime(datetime.now(UTC) + timedelta(days=30))
        await self._write.send(self._banking.GrantMandate, mandate)
        print_line(f"{format_amount(limit):>12} of a-1 may be spent by {self._friend}")

    async def _start_manager(self) -> None:
        await self._manager.start()
        for order_id, state in self._previous_orders.items():
            await self._wait_for(order_id, state)
            print_line(f"{order_id:36}  {state}")
        print_check("fulfilled, confirmed and cancelled, like the orders")

    async def _place(self, case: ExpectedOrder) -> str:
        request = order_of(case.customer, 1)
        request.account_id = case.account_id
        del request.lines[:]
        for quoted in await self._quote(case.customer, case.pieces):
            title, quantity = f"A {quoted.sku.partition('-')[0]}", case.pieces[quoted.sku]
            request.lines.append(
                OrderLine(sku=quoted.sku, title=title, quantity=quantity, unit_price=quoted.price)
            )
            request.quotes.append(quoted.quote)
        return str((await self._write.send(self._ordering.PlaceOrder, request)).aggregate_id)

    async def _quote(self, customer: str, skus: Iterable[str]) -> Sequence[QuotedPrice]:
        request = QuotePricesRequest(customer_id=customer, skus=skus)
        response = await self._read.query(self._catalogue.QuotePrices, request)
        return list(response.quotes)

    async def _lower_a_price(self) -> None:
        request = order_of("ada", 1)
        (quoted,) = await self._quote("ada", ["lamp-1"])
        request.lines[0].unit_price.units -= 10
        for quotes, reason in (
            ([], "QUOTE_MISSING"),
            ([quoted.quote], "QUOTE_OF_ANOTHER_PRICE"),
            ([f"AAAA{quoted.quote[4:]}"], "QUOTE_INVALID"),
        ):
            request.request_id = str(uuid4())
            del request.quotes[:]
            request.quotes.extend(quotes)
            try:
                receipt = await self._write.send(self._ordering.PlaceOrder, request)
            except Rejection as rejection:
                check(rejection.reason == reason, f"rejected: {reason}", rejection)
            else:
                raise UnexpectedResult(f"the order was not rejected: {receipt}")

    async def _show(self, orders: Sequence[str]) -> None:
        for order_id, case in zip(orders, EXPECTED_ORDERS, strict=True):
            view = await self._wait_for(order_id, case.final_state)
            pieces = ", ".join(f"{quantity} {sku}" for sku, quantity in case.pieces.items())
            print_line(
                f"{case.customer}  {pieces:18} {case.final_state:10} {view.rejection or view.suspicion}"
            )
            if case.reason not in (view.rejection, view.suspicion):
                raise UnexpectedResult(f"not {case.reason}: {view}")
        print_check("five confirmed, four rejected with a reason, one in review")

    async def _approve(self, order_id: str) -> None:
        approval = ordering.ApproveOrderRequest(order_id=order_id)
        await self._write.send(self._ordering.ApproveOrder, approval)
        view = await self._watch_until_confirmed(order_id)
        check(bool(view.reservation_id and view.hold_id), "stock and money are firm", view)

    async def _watch_until_confirmed(self, order_id: str) -> Fulfilment:
        request = fulfilment.WatchFulfilmentRequest(order_id=order_id)
        async for response in self._read.watch(self._fulfilments.WatchFulfilment, request):
            view: Fulfilment = response.fulfilment
            print_line(f"{Fulfilment.State.Name(view.state).removeprefix('STATE_'):10} {view.waiting_for}")
            if view.state == Fulfilment.STATE_CONFIRMED:
                return view
        raise UnexpectedResult("the watch ended")

    async def _ship_and_cancel(self, shipped: str, cancelled: str) -> None:
        shipping = ordering.ShipOrderRequest(order_id=shipped, carrier="Swift", tracking_code="S-18")
        await self._write.send(self._ordering.ShipOrder, shipping)
        cancelling = ordering.CancelOrderRequest(order_id=cancelled, reason="changed my mind")
        await self._write.send(self._ordering.CancelOrder, cancelling)
        for order_id, state in ((shipped, "FULFILLED"), (cancelled, "CANCELLED")):
            view = await self._wait_for(order_id, state)
            seconds = view.state_start_time.ToNanoseconds() - view.begin_time.ToNanoseconds()
            print_line(f"{order_id:36}  {state:10} {seconds / 1e9:5.1f} s after it was placed")
        print_check("goods and money have left, or are free again")

    async def _check_levels(self) -> None:
        stock = await poll(self._read_levels, STOCK)
        for sku, (on_hand, reserved) in stock.items():
            print_line(f"{sku:8} {on_hand:4} on hand, {reserved:3} of them reserved")
        money = await poll(self._read_balances, MONEY)
        for account_id, (balance, held) in money.items():
            print_line(f"{account_id:8} {balance:>13}, {held:>12} of it held")
        check((stock, money) == (STOCK, MONEY), "exactly what the orders leave", (stock, money))

    async def _read_levels(self) -> dict[str, tuple[int, int]]:
        requests = {sku: inventory_queries.GetStockRequest(sku=sku) for sku in STOCK}
        stocks = {
            sku: await self._read.query(self._stock.GetStock, request) for sku, request in requests.items()
        }
        return {sku: (stock.on_hand, stock.reserved) for sku, stock in stocks.items()}

    async def _read_balances(self) -> dict[str, tuple[str, str]]:
        balances = {}
        for id_ in MONEY:
            request = banking_queries.GetAccountRequest(account_id=id_)
            account = (await self._read.query(self._accounts.GetAccount, request)).account
            balances[id_] = (format_amount(account.balance), format_amount(account.held))
        return balances

    async def _wait_for(self, order_id: str, state: str) -> Fulfilment:
        """Return an order's fulfilment once it is in this state."""
        view = Fulfilment()

        async def read_status() -> str:
            nonlocal view
            try:
                request = fulfilment.GetFulfilmentRequest(order_id=order_id)
                view = (await self._read.query(self._fulfilments.GetFulfilment, request)).fulfilment
            except Rejection as rejection:
                if rejection.code != grpc.StatusCode.NOT_FOUND:
                    raise
                return "unknown"
            return Fulfilment.State.Name(view.state).removeprefix("STATE_")

        if (status := await poll(read_status, state)) != state:
            raise UnexpectedResult(f"order {order_id} is not {state}, but {status}: {view}")
        return view
