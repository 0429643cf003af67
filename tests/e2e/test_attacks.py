"""What a hostile customer tries who knows protos and docs: no other's things, money or prices."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as banking_queries
from diptych.catalogue.v1 import command_service_pb2 as catalogue
from diptych.catalogue.v1 import query_service_pb2 as catalogue_queries
from diptych.catalogue.v1.types_pb2 import ProductDetails
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.types_pb2 import Order, ShippingGroup
from diptych.ordering.v2 import command_service_pb2 as ordering_v2
from google.type.money_pb2 import Money

from devstack.stack import Stack
from tests.support.harness.caller import Caller
from tests.support.harness.rpc_failure import reason_of, rpc_failure
from tests.support.harness.shop import order_of

CUSTOMER_SCOPES = ("ordering.place", "ordering.read", "ordering.own", "catalogue.quote", "catalogue.own")
STAFF_SCOPES = (
    "ordering.place",
    "ordering.own-prices",
    "ordering.read",
    "catalogue.write",
    "catalogue.quote",
)


@pytest.fixture
async def mallory(stack: Stack) -> AsyncIterator[Caller]:
    """A customer of the shop, with the scopes of a customer."""
    caller = Caller(stack, *CUSTOMER_SCOPES, subject="mallory")
    yield caller
    await caller.close()


@pytest.fixture
async def staff(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, *STAFF_SCOPES, subject="staff")
    yield caller
    await caller.close()


async def publish_lamp(staff: Caller) -> tuple[str, str]:
    """Publish a lamp for 90 euros; return its sku and the consistency token."""
    sku, price = f"lamp-{uuid4().hex[:8]}", Money(currency_code="EUR", units=90)
    await staff.execute(catalogue.DraftProductRequest(sku=sku))
    details = ProductDetails(title="Lamp")
    await staff.execute(catalogue.ChangeDetailsRequest(sku=sku, details=details))
    await staff.execute(catalogue.SetPriceRequest(sku=sku, price=price))
    return sku, (await staff.execute(catalogue.PublishProductRequest(sku=sku))).consistency_token


def order_lamps(customer: str, sku: str, units: int, *quotes: str, version: int = 1) -> Any:
    """Return the order of a hundred lamps at a price."""
    request = order_of(customer, order_id=uuid4().hex, quotes=quotes)
    (line,) = request.lines
    line.sku, line.quantity = sku, 100
    line.unit_price.CopyFrom(Money(currency_code="EUR", units=units))
    if version == 1:
        return request
    group = ShippingGroup(shipping_group_id="main", lines=request.lines, warehouse_id=request.warehouse_id)
    group.shipping_address.CopyFrom(request.shipping_address)
    return ordering_v2.PlaceOrderRequest(
        order_id=request.order_id,
        customer_id=customer,
        account_id=request.account_id,
        quotes=quotes,
        shipping_groups=[group],
    )


async def test_nobody_gets_a_hundred_lamps_for_nothing(mallory: Caller, staff: Caller) -> None:
    sku, token = await publish_lamp(staff)

    async def quote(caller: Caller, customer: str) -> str:
        request = catalogue_queries.QuotePricesRequest(
            customer_id=customer, skus=[sku], at_least_as_fresh=token
        )
        (quoted,) = (await caller.query(request)).quotes
        assert quoted.price.units == 90
        return str(quoted.quote)

    own, of_ada = await quote(mallory, "mallory"), await quote(staff, "ada")
    for version in (1, 2):
        attempts = {
            "QUOTE_MISSING": order_lamps("mallory", sku, 0, version=version),
            "QUOTE_OF_ANOTHER_PRICE": order_lamps("mallory", sku, 0, own, version=version),
            "QUOTE_OF_ANOTHER_CUSTOMER": order_lamps("mallory", sku, 90, of_ada, version=version),
            "QUOTE_INVALID": order_lamps("mallory", sku, 90, f"AAAA{own[4:]}", version=version),
            "NOT_THE_OWNER": order_lamps("ada", sku, 90, of_ada, version=version),
        }
        for reason, request in attempts.items():
            assert await mallory.rejection_reason(request) == reason
    for_ada = catalogue_queries.QuotePricesRequest(customer_id="ada", skus=[sku])
    assert await mallory.rejection_reason(for_ada) == "NOT_THE_OWNER"
    await mallory.execute(placed := order_lamps("mallory", sku, 90, own))
    line = order_lamps("mallory", f"{sku}-2", 0).lines[0]
    for quote_ in ("", own):
        add = ordering.AddOrderLineRequest(order_id=placed.order_id, line=line, quote=quote_)
        assert await mallory.rejection_reason(add) == "QUOTE_MISSING"


async def test_nobody_touches_another_customers_order(mallory: Caller, staff: Caller) -> None:
    placed = order_of("ada", order_id=uuid4().hex)
    token = (await staff.execute(placed)).consistency_token
    line, address = placed.lines[0], placed.shipping_address
    group: dict[str, Any] = {"shipping_group_id": "main"}

    def attempt(order_id: str) -> list[Any]:
        """Return all that one may ask of an order and do with it."""
        id_: dict[str, Any] = {"order_id": order_id}
        return [
            queries.GetOrderRequest(**id_),
            queries.GetOrderCardRequest(**id_),
            queries.GetOrderHistoryRequest(**id_),
            queries.GetOrderRequest(**id_, at_least_as_fresh=token),
            ordering.CancelOrderRequest(**id_, reason="mine"),
            ordering.CancelOrderRequest(**id_, reason="mine", expected_version=1),
            ordering.CancelOrderRequest(**id_, reason="mine", expected_version=7),
            ordering.AddOrderLineRequest(**id_, **group, line=line),
            ordering.RemoveOrderLineRequest(**id_, **group, sku=line.sku),
            ordering.ChangeShippingAddressRequest(**id_, **group, shipping_address=address),
        ]

    for own, missing in zip(attempt(placed.order_id), attempt("nobodys"), strict=True):
        failure = await read_rejection(mallory, own)
        assert failure == await read_rejection(mallory, missing)
        assert failure[0] in ("ORDER_NOT_FOUND", "VERSION_MISMATCH")
    both = queries.BatchGetOrdersRequest(order_ids=[placed.order_id, "nobodys"])
    batch = await mallory.query(both)
    assert (list(batch.orders), list(batch.missing_order_ids)) == ([], [placed.order_id, "nobodys"])
    for order_id in (placed.order_id, "nobodys"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(mallory.watch(queries.WatchOrderRequest(order_id=order_id))))
        assert reason_of(refused.value) == "ORDER_NOT_FOUND"
    of_ada: list[Any] = [
        queries.ListOrdersRequest(customer_id="ada"),
        queries.ListOrderCardsRequest(customer_id="ada"),
        queries.GetCustomerSummaryRequest(customer_id="ada"),
        order_of("ada"),
    ]
    for request in of_ada:
        assert await mallory.rejection_reason(request) == "NOT_THE_OWNER"
    everybodys = queries.ListOrdersRequest(state=Order.STATE_PLACED)
    assert await mallory.rejection_reason(everybodys) == "NOT_THE_OWNER"
    get = queries.GetOrderRequest(order_id=placed.order_id, at_least_as_fresh=token)
    order = (await staff.query(get)).order
    assert (order.version, order.state) == (1, Order.STATE_PLACED)


async def read_rejection(caller: Caller, request: Any) -> tuple[str, str]:
    """Return the reason for which a request about an order is refused, and all that the refusal says."""
    fields = request.DESCRIPTOR.fields_by_name
    failure = await rpc_failure(caller.execute(request) if "request_id" in fields else caller.query(request))
    said = f"{failure.code} {failure.message} {failure.metadata} {failure.violations}"
    return failure.reason, said.replace(request.order_id, "ID")


def euros(units: int) -> Money:
    return Money(currency_code="EUR", units=units)


@pytest.fixture
async def accounts(stack: Stack) -> AsyncIterator[tuple[str, str, str]]:
    """Accounts of mallory with 40,000 euros, of her sister, and of a stranger with a million."""
    bank = Caller(stack, "banking.open", "banking.refund", subject="bank")
    ids = [uuid4().hex for _ in range(3)]
    for id_, owner, units in zip(ids, ("mallory", "sister", "ada"), (40_000, 1, 1_000_000), strict=True):
        await bank.execute(banking.OpenAccountRequest(account_id=id_, owner_id=owner, currency_code="EUR"))
        refund = banking.PayRefundRequest(refund_id=id_, account_id=id_, amount=euros(units), reference="pay")
        await bank.execute(refund)
    await bank.close()
    yield ids[0], ids[1], ids[2]


BANKING = ("banking.pay", "banking.approve", "banking.read", "banking.own", "act.on-behalf")


async def test_large_sums_do_not_leave_in_pieces(stack: Stack, accounts: tuple[str, str, str]) -> None:
    own, sister, _ = accounts
    mallory = Caller(stack, *BANKING, subject="shop", on_behalf_of="mallory")
    other_service = Caller(stack, *BANKING, subject="bank-app", on_behalf_of="mallory")
    to = {"from_account_id": own, "to_account_id": sister, "reference": "rent"}
    for _ in range(2):
        paid = await mallory.execute(banking.TransferRequest(amount=euros(4_500), **to))
    for caller in (mallory, other_service):
        transfer = banking.TransferRequest(amount=euros(4_500), **to)
        assert await caller.rejection_reason(transfer) == "TRANSFER_NEEDS_APPROVAL"
        for units in (4_500, 30_000):
            withdraw = banking.WithdrawRequest(account_id=own, amount=euros(units), reference="cash")
            assert await caller.rejection_reason(withdraw) == "WITHDRAWAL_NEEDS_APPROVAL"
    requests: list[Any] = [
        banking.RequestTransferRequest(transfer_id=uuid4().hex, amount=euros(20_000), **to),
        banking.RequestWithdrawalRequest(
            withdrawal_id=uuid4().hex, account_id=own, amount=euros(20_000), reference="cash"
        ),
    ]
    for request in requests:
        await mallory.execute(request)
    approvals = [
        banking.ApproveTransferRequest(transfer_id=requests[0].transfer_id),
        banking.ApproveWithdrawalRequest(withdrawal_id=requests[1].withdrawal_id),
    ]
    for approval, reason in zip(approvals, ("TRANSFER_SAME_CALLER", "WITHDRAWAL_SAME_CALLER"), strict=True):
        assert await other_service.rejection_reason(approval) == reason
    get = banking_queries.GetAccountRequest(account_id=own, at_least_as_fresh=paid.consistency_token)
    assert (await mallory.query(get)).account.balance.units == 31_000
    for caller in (mallory, other_service):
        await caller.close()


async def test_a_strangers_account_pays_nothing(stack: Stack, accounts: tuple[str, str, str]) -> None:
    _, _, strangers = accounts
    mallory = Caller(stack, *BANKING, "banking.hold", subject="mallory")
    to = {"from_account_id": strangers, "to_account_id": accounts[0], "reference": "gift"}
    attempts: list[Any] = [
        banking.TransferRequest(amount=euros(1), **to),
        banking.RequestTransferRequest(transfer_id=uuid4().hex, amount=euros(1), **to),
        banking.WithdrawRequest(account_id=strangers, amount=euros(1), reference="cash"),
        banking_queries.GetAccountRequest(account_id=strangers),
    ]
    for request in attempts:
        assert await mallory.rejection_reason(request) == "ACCOUNT_NOT_FOUND", request
    saga = Caller(stack, "banking.hold")
    hold = banking.PlaceHoldRequest(
        hold_id=uuid4().hex, account_id=strangers, amount=euros(1), reference="order", customer_id="mallory"
    )
    hold.deadline.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    assert await saga.rejection_reason(hold) == "MANDATE_MISSING"
    for caller in (mallory, saga):
        await caller.close()
