"""Callers reach their own objects alone, through the whole stack; the others are as if they did not exist."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.descriptor import MethodDescriptor

from contracts.manifest import context_of
from devstack.describe_access import find_services
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, OPERATIONS_SERVER, QUERY_SERVER
from runtime.codec import message_class
from runtime.grpc.access import rule_of
from tests.support.harness.caller import Caller
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.shop import order_of

SCOPES = ("ordering.place", "ordering.read", "ordering.own-prices", "ordering.own")


class Callers:
    """A customer, somebody else, and a shop that acts for the customer."""

    def __init__(self, stack: Stack) -> None:
        self.ada_id = f"ada-{uuid4().hex[:8]}"
        self.ada = Caller(stack, *SCOPES, subject=self.ada_id)
        self.eve = Caller(stack, *SCOPES, subject="eve")
        self.shop = Caller(stack, *SCOPES, "act.on-behalf", subject="shop", on_behalf_of=self.ada_id)
        self.impostor = Caller(stack, *SCOPES, subject="eve", on_behalf_of=self.ada_id)

    def order(self) -> commands.PlaceOrderRequest:
        order = order_of(self.ada_id)
        order.order_id = uuid4().hex
        return order


@pytest.fixture
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    callers = Callers(stack)
    async with AsyncExitStack() as closing:
        for each in (callers.ada, callers.eve, callers.shop, callers.impostor):
            closing.push_async_callback(each.close)
        yield callers


async def reason_of_watch(caller: Caller, request: Any) -> str:
    try:
        async for _ in caller.watch(request):
            return ""
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    raise AssertionError("the watch ended")


async def test_an_order_exists_for_its_customer_alone(callers: Callers) -> None:
    ada, eve, order = callers.ada, callers.eve, callers.order()
    assert await eve.rejection_reason(order) == "NOT_THE_OWNER"
    fresh = (await ada.execute(order)).consistency_token
    id_: Any = {"order_id": order.order_id}
    request: Any
    get = queries.GetOrderRequest(**id_, at_least_as_fresh=fresh)
    assert (await ada.query(get)).order.customer_id == callers.ada_id
    for request in (get, queries.GetOrderCardRequest(**id_), queries.GetOrderHistoryRequest(**id_)):
        assert await eve.rejection_reason(request) == "ORDER_NOT_FOUND"
    assert await reason_of_watch(eve, queries.WatchOrderRequest(**id_)) == "ORDER_NOT_FOUND"
    assert await reason_of_watch(ada, queries.WatchOrderRequest(**id_)) == ""
    batch = queries.BatchGetOrdersRequest(order_ids=[order.order_id])
    assert list((await eve.query(batch)).missing_order_ids) == [order.order_id]
    assert [each.order_id for each in (await ada.query(batch)).orders] == [order.order_id]
    for request in (
        queries.ListOrdersRequest(customer_id=callers.ada_id),
        queries.ListOrdersRequest(state=Order.STATE_PLACED),
        queries.ListOrderCardsRequest(customer_id=callers.ada_id),
        queries.GetCustomerSummaryRequest(customer_id=callers.ada_id),
    ):
        assert await eve.rejection_reason(request) == "NOT_THE_OWNER"
    feed = queries.WatchCustomerOrdersRequest(customer_id=callers.ada_id)
    assert await reason_of_watch(eve, feed) == "NOT_THE_OWNER"
    assert len((await ada.query(queries.ListOrdersRequest(customer_id=callers.ada_id))).orders) == 1


async def test_an_order_is_cancelled_by_its_customer_or_who_acts_for_it(callers: Callers) -> None:
    first, second = callers.order(), callers.order()
    await callers.ada.execute(first)
    await callers.shop.execute(second)
    for version in (None, 0, 1):
        cancel = commands.CancelOrderRequest(reason="enough", expected_version=version)
        answers = set()
        for order_id in (first.order_id, uuid4().hex):
            cancel.order_id, cancel.request_id = order_id, ""
            answers.add(await callers.eve.rejection_reason(cancel))
        assert len(answers) == 1
    cancel = commands.CancelOrderRequest(order_id=second.order_id, reason="enough")
    assert await callers.impostor.rejection_reason(cancel) == "SCOPE_MISSING"
    await callers.shop.execute(commands.CancelOrderRequest(order_id=first.order_id, reason="enough"))
    await callers.ada.execute(cancel)


# Every method


def list_methods() -> Iterator[MethodDescriptor]:
    """Yield all methods but those of the process manager, which does not run here."""
    for service, _ in find_services():
        if context_of(service.full_name) != "sagas":
            yield from service.methods


def find_address(stack: Stack, method: MethodDescriptor) -> str:
    name = method.containing_service.name
    kinds = {"CommandService": COMMAND_SERVER, "OperationsService": OPERATIONS_SERVER}
    return stack.of(kinds.get(name, QUERY_SERVER))[0].address


async def call(stack: Stack, method: MethodDescriptor, token: str | None) -> str:
    """Return the reason of the answer to an empty request; empty if it is not refused."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with grpc.aio.insecure_channel(find_address(stack, method)) as channel:
        make: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        parse = message_class(method.output_type).FromString
        try:
            call = make(path, bytes, parse)(b"", metadata=metadata, timeout=10)
            await (anext(aiter(call)) if method.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            return reason_of(error) if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED else ""
        except StopAsyncIteration:
            return ""
    return ""


@pytest.mark.long
async def test_nobody_reaches_a_method_without_the_scopes_of_its_rule(stack: Stack) -> None:
    everything = [scope for method in list_methods() for scope in rule_of(method).scopes]
    valid = stack.token(*set(everything))
    unsigned = jwt.decode(valid, options={"verify_signature": False})
    header = jwt.get_unverified_header(valid)
    forged = jwt.encode(unsigned, Ed25519PrivateKey.generate(), "EdDSA", header)
    expired = stack.token(*set(everything), lifetime=-timedelta(minutes=1))
    for method in list_methods():
        rule = rule_of(method)
        others = {scope for scope in everything if scope != rule.scope}
        expected = {
            None: "UNAUTHENTICATED",
            forged: "UNAUTHENTICATED",
            expired: "UNAUTHENTICATED",
            stack.token(): "SCOPE_MISSING",
            stack.token(*others): "SCOPE_MISSING",
            stack.token(*set(everything), on_behalf_of="ada"): "SCOPE_MISSING",
        }
        if rule.owner:
            expected[stack.token(rule.scope)] = "SCOPE_MISSING"
        for token, reason in expected.items():
            assert (method.full_name, await call(stack, method, token)) == (method.full_name, reason)
        refused = {"UNAUTHENTICATED", "SCOPE_MISSING", "NOT_THE_OWNER"}
        assert await call(stack, method, valid) not in refused, method.full_name
