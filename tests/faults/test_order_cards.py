"""A product on 100,000 order cards is renamed while projectors are killed: every card is right at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import grpc
import pytest
from diptych.catalogue.v1 import command_service_pb2 as catalogue
from diptych.catalogue.v1.types_pb2 import ProductDetails
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from contracts.view_layout import View
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import PROJECTOR
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long

COUNT, IN_FLIGHT, RENAMES = 100_000, 64, 3
SKU = "sku-1"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path, contexts="ordering,catalogue,customers,fulfilment") as stack:
        yield stack


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, "catalogue.write", "ordering.read")
    yield caller
    await caller.close()


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    shop = Shop(stack)
    yield shop
    await shop.close()


async def place_all(shop: Shop) -> None:
    numbers = iter(range(COUNT))

    async def place_some() -> None:
        for number in numbers:
            await shop.place(order_of(f"c-{number % 1_000}"))

    await asyncio.gather(*(place_some() for _ in range(IN_FLIGHT)))


async def are_listed(redis: Redis) -> bool:
    return bool(await redis.zcard(View.of(Order).index("sku", SKU)) == COUNT)


async def rename(caller: Caller, title: str) -> str:
    """Rename the product; return the consistency token."""
    details = ProductDetails(title=title)
    receipt = await caller.execute(catalogue.ChangeDetailsRequest(sku=SKU, details=details))
    return receipt.consistency_token


async def read_page(caller: Caller, request: queries.ListOrderCardsRequest) -> queries.ListOrderCardsResponse:
    while True:
        try:
            page = await caller.query(request)
        except grpc.aio.AioRpcError as error:  # a projector was killed, and another has not caught up yet
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            continue
        assert isinstance(page, queries.ListOrderCardsResponse)
        return page


async def count_cards(caller: Caller, title: str, token: str) -> int:
    """Return the number of cards of the product, each of which must have this title."""
    found, page_token = 0, ""
    while True:
        request = queries.ListOrderCardsRequest(
            sku=SKU, page_size=100, page_token=page_token, at_least_as_fresh=token
        )
        page = await read_page(caller, request)
        assert {product.title for card in page.cards for product in card.products} <= {title}
        found += len(page.cards)
        if not (page_token := page.next_page_token):
            return found


async def keep_placing(shop: Shop, is_over: Callable[[], bool]) -> int:
    """Place orders and read each back with its token; return their number."""
    for number in count():
        if is_over():
            return number
        receipt = await shop.place(order_of("others"))
        try:
            await shop.get(receipt.aggregate_id, receipt.consistency_token)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
    raise AssertionError


async def test_every_card_shows_the_new_title_at_once(stack: Stack, caller: Caller, shop: Shop) -> None:
    await caller.execute(catalogue.DraftProductRequest(sku=SKU))
    await place_all(shop)
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await until(lambda: are_listed(redis), 120)
    others = 0
    for number in range(RENAMES):
        title = f"Title {number}"
        token = await rename(caller, title)
        (projector,) = stack.of(PROJECTOR)
        await projector.kill()
        reading = asyncio.create_task(count_cards(caller, title, token))
        placing = asyncio.create_task(keep_placing(shop, reading.done))
        await projector.start()
        found = await reading
        assert found >= COUNT + others
        others += await placing
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
