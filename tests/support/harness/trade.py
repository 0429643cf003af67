"""Creates products, accounts and orders through the API, and waits for the ends of their fulfilments."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import query_service_pb2 as inventory_queries
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_OPENING, ReservationLine
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.query_service_pb2 import WatchOrderRequest
from diptych.sagas.v1.query_service_pb2 import GetSagaRequest
from google.type.money_pb2 import Money

from devstack.stack import Stack
from tests.support.harness.caller import Caller
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.shop import order_of
from tests.support.harness.waiting import until

SCOPES = (
    *("ordering.place", "ordering.own-prices", "ordering.read", "ordering.review"),
    *("ordering.confirm", "ordering.ship"),
    *("inventory.write", "inventory.reserve", "inventory.read"),
    *("banking.open", "banking.deposit", "banking.pay", "banking.hold", "banking.mandate"),
    "banking.refund",
    "banking.read",
    *("fulfilment.read", "sagas.read"),
)
LARGE_CASH = 10_000
"""Whole euros from which a deposit opens a case."""
PRICE = 30
"""The total of an order of three pieces, in whole euros."""

SAGA = "fulfilment.fulfilment"


class Trade:
    """Trades through one caller, on behalf of many customers."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._tokens: dict[str, str] = {}
        self._payers: dict[str, set[str]] = {}
        """The customers who may order at the cost of an account: its owner, and those with a mandate."""

    async def create_product(self, quantity: int) -> str:
        """Create a product with this quantity in warehouse w-1; return its sku."""
        sku = f"sku-{uuid4().hex[:8]}"
        await self.caller.execute(inventory.RegisterProductRequest(sku=sku, title="A thing", reorder_point=0))
        await self.caller.execute(
            inventory.ReceiveStockRequest(
                sku=sku,
                warehouse_id="w-1",
                quantity=quantity,
                reason=RECEIPT_REASON_OPENING,
                delivery_note="n",
            )
        )
        return sku

    async def open_account(self, units: int, owner_id: str = "ada") -> str:
        """Open an account with this balance in euros; return its id."""
        account_id, amount = uuid4().hex, Money(currency_code="EUR", units=units)
        await self.caller.execute(
            banking.OpenAccountRequest(account_id=account_id, owner_id=owner_id, currency_code="EUR")
        )
        self._payers[account_id] = {owner_id}
        if units < LARGE_CASH:
            deposit = banking.DepositRequest(account_id=account_id, amount=amount, reference="pay")
            await self.caller.execute(deposit)
        else:  # a deposit would freeze the account
            refund = banking.PayRefundRequest(
                refund_id=uuid4().hex, account_id=account_id, amount=amount, reference="pay"
            )
            await self.caller.execute(refund)
        return account_id

    async def place_order(
        self,
        sku: str,
        account_id: str,
        before: Callable[[str], None] = lambda _: None,
        *,
        total: int = PRICE,
        customer: str = "",
    ) -> str:
        """Place an order of three pieces; return its id.

        Args:
            sku: the product.
            account_id: the account that pays.
            before: called with the order's id before the order is placed.
            total: what the pieces cost in whole euros, a multiple of three.
            customer: who orders; a new customer if it is empty.
        """
        request = order_of(customer or f"c-{uuid4().hex[:8]}")
        request.order_id, request.account_id = uuid4().hex, account_id
        request.lines[0].sku = sku
        request.lines[0].unit_price.CopyFrom(Money(currency_code="EUR", units=total // 3))
        before(request.order_id)
        return await self.place(request)

    async def place_past_review(self, sku: str, account_id: str, total: int, *, ship: bool = False) -> str:
        """Place suspicious orders until one is confirmed, and shipped, before its review; return its id."""
        while True:
            order_id = await self.place_order(sku, account_id, total=total)
            try:
                await self.caller.execute(ordering.ConfirmOrderRequest(order_id=order_id))
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) == "ORDER_HELD", error
            else:
                if ship:
                    await self.ship(order_id)
                return order_id

    async def place(self, request: ordering.PlaceOrderRequest) -> str:
        """Place an order; return its id. Its customer gets a mandate to let the account pay."""
        payers = self._payers.get(request.account_id, {request.customer_id})
        if request.customer_id not in payers:
            payers.add(request.customer_id)
            await self._execute(grant(request.account_id, request.customer_id))
        receipt = await self._execute(request)
        self._tokens[request.order_id] = receipt.consistency_token
        return request.order_id

    async def _execute(self, request: Any) -> Any:
        """Execute a command; repeat it while no server takes it."""
        while True:
            try:
                return await self.caller.execute(request)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.CANCELLED,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ), error
                await asyncio.sleep(0.05)  # its server was killed: send the same request again

    async def watch_until(self, order_id: str, state: int) -> None:
        """Watch an order until it is in this state."""
        call: Any = self.caller.watch(
            WatchOrderRequest(order_id=order_id, at_least_as_fresh=self._tokens[order_id])
        )
        try:
            async for response in call:
                if response.order.state == state:
                    call.cancel()
                    return
        except grpc.aio.AioRpcError as error:
            shown = await self.get_fulfilment(order_id)
            raise AssertionError(f"{order_id} is not in state {state}: {error.code()}, {shown}") from error

    async def claim_without_order(self, sku: str, account_id: str, lifetime: timedelta) -> str:
        """Reserve two pieces and hold one euro for this time, for no order; return the id of both."""
        id_, amount = uuid4().hex, Money(currency_code="EUR", units=1)
        line = ReservationLine(sku=sku, warehouse_id="w-1", quantity=2)
        reserve = inventory.ReserveStockRequest(reservation_id=id_, lines=[line])
        hold = banking.PlaceHoldRequest(
            hold_id=id_, account_id=account_id, amount=amount, reference="nothing", customer_id="ada"
        )
        for request in (reserve, hold):
            request.deadline.FromDatetime(datetime.now(UTC) + lifetime)
        await asyncio.gather(self.caller.execute(reserve), self.caller.execute(hold))
        return id_

    async def release_reasons(self, id_: str) -> set[str]:
        """Return the release reasons of the reservation and hold of this id; empty for one not released."""
        try:
            reservation = await self.caller.query(inventory_queries.GetReservationRequest(reservation_id=id_))
            hold = await self.caller.query(banking_queries.GetHoldRequest(hold_id=id_))
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return {""}
        return {reservation.reservation.release_reason, hold.hold.release_reason}

    async def ship(self, order_id: str) -> None:
        await self.caller.execute(
            ordering.ShipOrderRequest(order_id=order_id, carrier="Swift", tracking_code="1")
        )

    async def return_order(self, order_id: str) -> None:
        await self.caller.execute(ordering.DeliverOrderRequest(order_id=order_id))
        await self.caller.execute(ordering.ReturnOrderRequest(order_id=order_id, reason="broken"))

    async def get_fulfilment(self, order_id: str) -> Fulfilment | None:
        """Return a fulfilment; None before it is recorded, and while its view is behind."""
        request = fulfilment.GetFulfilmentRequest(
            order_id=order_id, at_least_as_fresh=self._tokens.get(order_id, "")
        )
        try:
            response = await self.caller.query(request)
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND), error
            return None
        result: Fulfilment = response.fulfilment
        return result

    async def get_fulfilment_of(self, order_id: str) -> Fulfilment:
        """Return a fulfilment that includes the order's command, as soon as the view is not behind it."""
        request = fulfilment.GetFulfilmentRequest(order_id=order_id, at_least_as_fresh=self._tokens[order_id])
        while True:
            try:
                result: Fulfilment = (await self.caller.query(request)).fulfilment
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) == "VIEW_BEHIND", error
            else:
                return result

    async def has_pending_steps(self, order_id: str) -> bool:
        """Return whether steps of an order's saga are unanswered, or its process manager is unavailable."""
        try:
            saga = (await self.caller.query(GetSagaRequest(saga=SAGA, id=order_id))).saga
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND), error
            return True
        return not all(step.outcome for step in saga.steps)

    async def wait_for_state(self, order_id: str, *states: str) -> str:
        """Wait until a fulfilment is in one of these states without a pending step; return the state."""
        state = ""

        async def is_in_state() -> bool:
            nonlocal state
            result = await self.get_fulfilment(order_id)
            state = Fulfilment.State.Name(result.state).removeprefix("STATE_") if result else ""
            return result is not None and state in states and not await self.has_pending_steps(order_id)

        await until(is_in_state, 60)
        return state

    async def wait_for_stock(self, sku: str, levels: tuple[int, int]) -> None:
        """Wait until a product has these quantities on hand and reserved."""

        async def has_levels() -> bool:
            stock = await self.caller.query(inventory_queries.GetStockRequest(sku=sku))
            return (stock.on_hand, stock.reserved) == levels

        await until(has_levels)

    async def wait_for_account(self, account_id: str, levels: tuple[int, int]) -> None:
        """Wait until an account has this balance and this held amount, in euros."""

        async def has_levels() -> bool:
            request = banking_queries.GetAccountRequest(account_id=account_id)
            try:
                account = (await self.caller.query(request)).account
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) == "ACCOUNT_NOT_FOUND"
                return False
            return (account.balance.units, account.held.units) == levels

        await until(has_levels)


@pytest.fixture
async def trade(stack: Stack) -> AsyncIterator[Trade]:
    caller = Caller(stack, *SCOPES)
    yield Trade(caller)
    await caller.close()


def grant(account_id: str, customer_id: str, currency_code: str = "EUR") -> banking.GrantMandateRequest:
    """Return the command that lets a customer order at the cost of an account."""
    limit = Money(currency_code=currency_code, units=1_000_000)
    request = banking.GrantMandateRequest(
        account_id=account_id, customer_id=customer_id, order_limit=limit, total_limit=limit
    )
    request.until.FromDatetime(datetime.now(UTC) + timedelta(days=30))
    return request
