"""A company that trades: products, accounts and orders, and how their fulfilments end."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import query_service_pb2 as inventory_queries
from diptych.inventory.v1.types_pb2 import ReservationLine
from diptych.ordering.v1 import command_service_pb2 as ordering
from google.type.money_pb2 import Money

from tests.support.harness.caller import Caller
from tests.support.harness.shop import order_of
from tests.support.harness.waiting import until

SCOPES = (
    *("ordering.write", "ordering.read", "ordering.review"),
    *("inventory.write", "inventory.reserve", "inventory.read"),
    *("banking.write", "banking.hold", "banking.read", "fulfilment.read"),
)
PRICE = 30
"""What an order comes to, in whole euros: three pieces."""


class Trade:
    """Trades through one caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._tokens: dict[str, str] = {}

    async def product(self, quantity: int) -> str:
        """Return the sku of a new product, of which there is so much at w-1."""
        sku = f"sku-{uuid4().hex[:8]}"
        await self.caller.do(inventory.RegisterProductRequest(sku=sku, title="A thing", reorder_point=0))
        await self.caller.do(
            inventory.ReceiveStockRequest(
                sku=sku, warehouse_id="w-1", quantity=quantity, purchase_order="po", delivery_note="n"
            )
        )
        return sku

    async def account(self, units: int) -> str:
        """Return the id of a new account with so many euros."""
        account_id, amount = uuid4().hex, Money(currency_code="EUR", units=units)
        await self.caller.do(
            banking.OpenAccountRequest(account_id=account_id, owner_id="ada", currency_code="EUR")
        )
        await self.caller.do(banking.DepositRequest(account_id=account_id, amount=amount, reference="pay"))
        return account_id

    async def place(self, sku: str, account_id: str, before: Callable[[str], None] = lambda _: None) -> str:
        """Return the id of a new order of three pieces, by a customer who has never ordered.

        Args:
            sku: of what.
            account_id: who pays.
            before: is told the order's id before it is placed.
        """
        request = order_of(f"c-{uuid4().hex[:8]}")
        request.order_id, request.account_id = uuid4().hex, account_id
        request.lines[0].sku = sku
        request.lines[0].unit_price.CopyFrom(Money(currency_code="EUR", units=PRICE // 3))
        before(request.order_id)
        while True:
            try:
                receipt = await self.caller.do(request)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.CANCELLED,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ), error
                await asyncio.sleep(0.05)  # its server was killed: the same request again
            else:
                self._tokens[request.order_id] = receipt.consistency_token
                return request.order_id

    async def keep(self, sku: str, account_id: str, until: timedelta) -> str:
        """Reserve two pieces and hold one euro so long, and for no order; return the id of both."""
        id_, one = uuid4().hex, Money(currency_code="EUR", units=1)
        line = ReservationLine(sku=sku, warehouse_id="w-1", quantity=2)
        reserve = inventory.ReserveStockRequest(reservation_id=id_, lines=[line])
        hold = banking.PlaceHoldRequest(hold_id=id_, account_id=account_id, amount=one, reference="nothing")
        for request in (reserve, hold):
            request.deadline.FromDatetime(datetime.now(UTC) + until)
        await asyncio.gather(self.caller.do(reserve), self.caller.do(hold))
        return id_

    async def why_released(self, id_: str) -> set[str]:
        """Return why a reservation and a hold of this id were released; empty where one was not."""
        try:
            reservation = await self.caller.ask(inventory_queries.GetReservationRequest(reservation_id=id_))
            hold = await self.caller.ask(banking_queries.GetHoldRequest(hold_id=id_))
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return {""}
        return {reservation.reservation.release_reason, hold.hold.release_reason}

    async def ship(self, order_id: str) -> None:
        await self.caller.do(ordering.ShipOrderRequest(order_id=order_id, carrier="Swift", tracking_code="1"))

    async def give_back(self, order_id: str) -> None:
        await self.caller.do(ordering.DeliverOrderRequest(order_id=order_id))
        await self.caller.do(ordering.ReturnOrderRequest(order_id=order_id, reason="broken"))

    async def fulfilment(self, order_id: str) -> Fulfilment | None:
        """Return a fulfilment; None where nobody can tell now."""
        request = fulfilment.GetFulfilmentRequest(
            order_id=order_id, at_least_as_fresh=self._tokens.get(order_id, "")
        )
        try:
            found: Fulfilment = (await self.caller.ask(request)).fulfilment
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            return None
        return found

    async def ends(self, order_id: str, *states: str) -> str:
        """Return the state in which a fulfilment rests, once nothing of it is under way."""
        found = ""

        async def rests() -> bool:
            nonlocal found
            one = await self.fulfilment(order_id)
            found = Fulfilment.State.Name(one.state).removeprefix("STATE_") if one else ""
            return one is not None and found in states and all(step.outcome for step in one.steps)

        await until(rests, 60)
        return found

    async def shows(self, sku: str, levels: tuple[int, int]) -> None:
        """Wait until so much is on hand, and so much of it reserved."""

        async def does() -> bool:
            stock = await self.caller.ask(inventory_queries.GetStockRequest(sku=sku))
            return (stock.on_hand, stock.reserved) == levels

        await until(does)

    async def shows_account(self, account_id: str, levels: tuple[int, int]) -> None:
        """Wait until an account has so many euros, and so much of it held."""

        async def does() -> bool:
            asked = banking_queries.GetAccountRequest(account_id=account_id)
            account = (await self.caller.ask(asked)).account
            return (account.balance.units, account.held.units) == levels

        await until(does)
