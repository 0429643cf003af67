"""The largest orders that the rules allow arrive everywhere: in lists, batches, watches and sagas."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
from diptych.fulfilment.v1 import query_service_pb2 as fulfilments
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1 import command_service_pb2 as commands
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v2.command_service_pb2 import PlaceOrderRequest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from runtime.grpc.response_size import MAX_PAGE_BYTES
from tests.support.builders.large_orders import GROUPS, LINES_PER_GROUP, large_order
from tests.support.harness.invariants import verify_stack
from tests.support.harness.trade import Trade
from tests.support.harness.waiting import until

ORDERS = 202
MAX_CONCURRENT = 8


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("large")
    async with temporary_stack(folder, process_managers=1) as stack:
        yield stack


async def execute_all(trade: Trade, requests: Sequence[object]) -> str:
    """Send commands, a few at a time, and return the consistency token of the last one."""
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def execute(request: object) -> str:
        async with limit:
            return (await trade.caller.execute(request)).consistency_token

    return (await asyncio.gather(*map(execute, requests)))[-1]


async def place_orders(trade: Trade, customer: str) -> list[str]:
    """Place the customer's orders, which stock and money suffice for; return their ids."""
    skus = [await trade.create_product(ORDERS * GROUPS) for _ in range(LINES_PER_GROUP)]
    account = await trade.open_account(ORDERS, customer)
    requests: list[PlaceOrderRequest] = [large_order(customer, account, skus) for _ in range(ORDERS)]
    await execute_all(trade, requests)
    return [request.order_id for request in requests]


async def list_states(trade: Trade) -> dict[str, str]:
    """Return the states of all fulfilments by order id."""
    states: dict[str, str] = {}
    token = ""
    while True:
        page = await trade.caller.query(fulfilments.ListFulfilmentsRequest(page_size=100, page_token=token))
        for each in page.fulfilments:
            states[each.order_id] = Fulfilment.State.Name(each.state).removeprefix("STATE_")
        if not (token := page.next_page_token):
            return states


async def wait_until_all_are_in(trade: Trade, *expected: str) -> dict[str, str]:
    states: dict[str, str] = {}

    async def is_in_expected() -> bool:
        nonlocal states
        states = await list_states(trade)
        print(Counter(states.values()))
        return len(states) == ORDERS and set(states.values()) <= set(expected)

    await until(is_in_expected, 90)
    return states


async def check_lists(trade: Trade, customer: str, ids: Sequence[str]) -> None:
    """Read all orders by lists, batches and a watch, with clients that accept no more than gRPC's default."""
    listed: list[str] = []
    token, most = "", 0
    while not listed or token:
        request = queries.ListOrdersRequest(customer_id=customer, page_size=100, page_token=token)
        page = await trade.caller.query(request)
        listed += [order.order_id for order in page.orders]
        token, most = page.next_page_token, max(most, page.ByteSize())
    print("largest page", most)
    assert (len(listed), set(listed)) == (ORDERS, set(ids))
    assert MAX_PAGE_BYTES / 2 < most < MAX_PAGE_BYTES + 10_000
    unread = list(ids[:100])
    received: list[str] = []
    while unread:
        batch = await trade.caller.query(queries.BatchGetOrdersRequest(order_ids=unread))
        received += [order.order_id for order in batch.orders]
        unread = list(batch.unread_order_ids)
    assert received == list(ids[:100])
    watched: set[str] = set()
    async for response in trade.caller.watch(queries.WatchCustomerOrdersRequest(customer_id=customer)):
        watched.add(response.order.order_id)
        if len(watched) == ORDERS:
            break


@pytest.mark.long
async def test_two_hundred_of_one_customer_are_listed_and_fulfilled(stack: Stack, trade: Trade) -> None:
    customer = f"c-{uuid4().hex[:8]}"
    ids = await place_orders(trade, customer)
    states = await wait_until_all_are_in(trade, "CONFIRMED", "IN_REVIEW")
    suspicious = [order_id for order_id, state in states.items() if state == "IN_REVIEW"]
    assert suspicious, "a sixth order within an hour is suspicious"
    await execute_all(trade, [commands.ApproveOrderRequest(order_id=order_id) for order_id in suspicious])
    await wait_until_all_are_in(trade, "CONFIRMED")
    await check_lists(trade, customer, ids)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
