"""Verification of search indexes: what query servers publish of them, against the views."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic, time

import pytest
from diptych.catalogue.v1.types_pb2 import Product
from redis.asyncio import Redis

from operations.verify.checks import search_indexes
from operations.verify.contexts import catalogue
from operations.verify.report import Report
from operations.verify.sources import RedisReader
from query_server.contexts.catalogue.index import PRODUCTS
from query_server.search import digests
from query_server.search.digests import publish_digests
from runtime.process.lifecycle import cancel_and_wait
from tests.support.builders.shop_views import make_product, make_stock
from tests.support.harness.product_search import SearchServer, StoredShop, run_search_server
from tests.support.harness.waiting import until

OTHER = ["search: has other documents than the 6 of the views"]
(SPEC,) = catalogue.AGGREGATES[0].projections


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_indexes, "INTERVAL", 0.1)
    monkeypatch.setattr(search_indexes, "STABLE_FOR", 0.4)
    monkeypatch.setattr(digests, "INTERVAL", 0.05)


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[StoredShop]:
    async with Redis.from_url(redis_url) as redis:
        shop = StoredShop(redis)
        await shop.begin_build()
        await shop.put(
            *(make_product(f"p-{n}", "Lamp", euros=n) for n in range(4)),
            make_product("later", later=(90, time() + 3600)),
            make_product("soon", later=(90, time() + 0.5)),
            make_product("draft", state=Product.STATE_DRAFT),
            make_product("gone", state=Product.STATE_WITHDRAWN),
        )
        await shop.put(make_stock("p-1", 3), make_stock("p-1", 0, warehouse="v"), make_stock("p-2", 0))
        yield shop


@asynccontextmanager
async def run_publishing_server(redis_url: str) -> AsyncIterator[SearchServer]:
    async with run_search_server(redis_url) as server:
        publishing = asyncio.create_task(publish_digests(server.follower, server.reader))
        try:
            yield server
        finally:
            await cancel_and_wait(publishing)


async def check(redis_url: str) -> Report:
    reader, report = RedisReader(redis_url), Report()
    try:
        await search_indexes.check(reader, SPEC, report, monotonic() + 20)
    finally:
        await reader.close()
    return report


def find_problems(report: Report) -> Sequence[str]:
    return [f"{problem.check}: {problem.text}" for problem in report.problems]


async def count_digests(shop: StoredShop) -> int:
    return len([key async for key in shop.redis.scan_iter("search_index:*")])


async def test_indexes_that_have_followed_the_views_are_clean(shop: StoredShop, redis_url: str) -> None:
    assert (await check(redis_url)).counts == {}, "no server, no index"
    async with run_publishing_server(redis_url):
        await until(lambda: count_digests(shop))
        report = await check(redis_url)
        assert (report.problems, report.notes) == ([], [])
        assert report.counts == {"search indexes": 1, "search documents": 6}
        await shop.put(make_product("p-3", "Table", version=2), make_product("p-9", "Lamp"))
        await shop.put(make_stock("p-2", 1, version=2))
        report = await check(redis_url)
        assert (report.problems, report.counts["search documents"]) == ([], 7)


async def test_what_an_index_has_missed_is_found(shop: StoredShop, redis_url: str) -> None:
    async with run_publishing_server(redis_url):
        await until(lambda: count_digests(shop))
        for product, problems in (
            (make_product("p-1", version=2), OTHER),
            (make_product("p-9"), ["search: has 6 documents, the views make 7"]),
        ):
            await shop.put(product, notify=False)
            assert find_problems(await check(redis_url)) == problems


async def test_what_an_index_has_of_stock_and_time_is_compared(shop: StoredShop, redis_url: str) -> None:
    async with run_publishing_server(redis_url) as server:
        await until(lambda: count_digests(shop))
        await shop.put(make_stock("p-0", 1), notify=False)
        assert find_problems(await check(redis_url)) == [
            "search: has other documents than the 6 of the views"
        ]
        await shop.put(make_stock("p-0", 1))
        assert not find_problems(await check(redis_url))
        await server.follower.stop_following()
        price = make_product("p-0", "Lamp", euros=0, later=(5, time() - 5))
        await shop.put(price, notify=False)  # of the same version, as if its time had come
        assert find_problems(await check(redis_url)) == [
            "search: has other documents than the 6 of the views"
        ]


async def test_a_digest_that_cannot_be_read_is_a_finding(shop: StoredShop, redis_url: str) -> None:
    await shop.redis.set(f"search_index:{PRODUCTS.projection}:host:1:a", "{")
    assert find_problems(await check(redis_url)) == ["search: its digest cannot be read"]
