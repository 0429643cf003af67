"""An index beside views: it follows every change, notices what it has missed, and is found again at start."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import pytest
from diptych.catalogue.v1 import query_service_pb2 as protocol
from diptych.catalogue.v1.types_pb2 import Product
from redis.asyncio import Redis

from contracts.view_layout import GENERATION
from query_server.contexts.catalogue.index import CLOCKS_DIFFER, PRODUCTS, STOCKS
from query_server.search import index
from query_server.search.index import MAX_WEIGHT
from runtime.grpc.health import NotReady
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.shop_views import make_money, make_product, make_stock, make_tree
from tests.support.harness.keys import mint_token
from tests.support.harness.product_search import SearchServer, StoredShop, run_search_server
from tests.support.harness.read_model import INCARNATION
from tests.support.harness.waiting import until

LATER = f"{GENERATION}.1"
NEXT_INCARNATION = INCARNATION.replace("5a", "6b")


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[StoredShop]:
    async with Redis.from_url(redis_url) as redis:
        shop = StoredShop(redis)
        await shop.begin_build()
        await shop.put(*(make_product(f"p-{n}", "Lamp", number=n) for n in range(5)))
        yield shop


@pytest.fixture
async def server(shop: StoredShop, redis_url: str) -> AsyncIterator[SearchServer]:
    async with run_search_server(redis_url) as server:
        yield server


ALL = [f"p-{n}" for n in range(5)]


async def test_changes_are_followed(server: SearchServer, shop: StoredShop) -> None:
    await shop.put(make_product("p-1", "Table", version=2), make_product("p-9", "Lamp"))
    await server.until_found("lamp", ["p-0", "p-2", "p-3", "p-4", "p-9"])
    assert await server.find("table") == ["p-1"]
    await shop.put(make_product("p-9", "Lamp", version=2, state=Product.STATE_WITHDRAWN))
    await server.until_found("lamp", ["p-0", "p-2", "p-3", "p-4"])


async def test_a_search_waits_for_its_token(server: SearchServer, shop: StoredShop) -> None:
    token = mint_token(INCARNATION, {"catalogue.product.p-1": 2})
    searching = asyncio.create_task(server.find("table", at_least_as_fresh=token))
    await asyncio.sleep(0)
    await shop.put(make_product("p-1", "Table", version=2), notify=False)  # as if the notification were lost
    assert await searching == ["p-1"]


async def test_a_search_whose_token_is_not_reached_is_refused(redis_url: str, shop: StoredShop) -> None:
    token = mint_token(INCARNATION, {"catalogue.product.p-1": 2})
    async with run_search_server(redis_url, max_wait=0.2) as server:
        with pytest.raises(RpcError) as error:
            await server.find("lamp", at_least_as_fresh=token)
        assert error.value.reason == "VIEW_BEHIND"
        # The view has the version, and the index is behind: here, because nothing reads any more.
        await server.follower.stop_following()
        await shop.put(make_product("p-1", version=2))
        with pytest.raises(RpcError) as error:
            await server.find("lamp", at_least_as_fresh=token)
        assert error.value.reason == "VIEW_BEHIND"


async def test_stock_changes_the_index_when_it_crosses_zero_only(
    server: SearchServer, shop: StoredShop
) -> None:
    async def find_in_stock(stock_version: int, warehouse: str = "w") -> list[str]:
        token = mint_token(INCARNATION, {f"inventory.stock.p-1-at-{warehouse}": stock_version})
        return await server.find("lamp", in_stock_only=True, at_least_as_fresh=token)

    assert await server.find("lamp", in_stock_only=True) == []
    await shop.put(make_stock("p-1", 5))
    assert await find_in_stock(1) == ["p-1"]
    commits = server.follower.commits
    for version, available in ((2, 4), (3, 1), (4, 7)):
        await shop.put(make_stock("p-1", available, version=version))
        assert await find_in_stock(version) == ["p-1"]
    await shop.put(make_stock("p-1", 1, warehouse="v"))
    assert await find_in_stock(1, "v") == ["p-1"]
    await shop.put(make_stock("p-1", 0, version=5))
    assert await find_in_stock(5) == ["p-1"], "there is one in the other warehouse"
    assert server.follower.commits == commits
    await shop.put(make_stock("p-1", 0, warehouse="v", version=2))
    assert await find_in_stock(2, "v") == []
    assert server.follower.commits == commits + 1


async def test_a_price_of_the_future_comes_into_the_index_by_itself(
    server: SearchServer, shop: StoredShop
) -> None:
    in_force_at = time() + CLOCKS_DIFFER.total_seconds() + 0.5
    await shop.put(make_product("p-1", "Lamp", euros=10, later=(90, in_force_at), version=2))
    token = mint_token(INCARNATION, {"catalogue.product.p-1": 2})
    assert await server.find("lamp", min_price=make_money(80), at_least_as_fresh=token) == []
    await server.until_found("lamp", ["p-1"], min_price=make_money(80))


async def test_missed_notifications_are_noticed(server: SearchServer, shop: StoredShop) -> None:
    await shop.put(make_product("p-1", "Table", version=2), notify=False)
    kill: Any = shop.redis.execute_command
    await kill("CLIENT", "KILL", "TYPE", "pubsub")
    await server.until_found("table", ["p-1"])


async def test_a_rebuild_in_place_is_followed(server: SearchServer, shop: StoredShop) -> None:
    await shop.clear(PRODUCTS)
    with pytest.raises(RpcError) as error:
        await server.find("lamp")
    assert error.value.reason == "VIEW_REBUILDING"
    # The same versions as before: a build of other code makes other views of the same events.
    await shop.put(*(make_product(sku, "Table") for sku in ALL[:3]))
    await shop.begin_build("2")

    async def is_followed() -> bool:
        try:
            return sorted(await server.find("table")) == ALL[:3] and not await server.find("lamp")
        except RpcError:
            return False

    await until(is_followed)


async def test_a_switch_to_another_generation_is_followed(server: SearchServer, shop: StoredShop) -> None:
    other = StoredShop(shop.redis, LATER)
    await other.begin_build("2")
    await other.put(*(make_product(sku, "Table") for sku in ALL))
    assert await server.find("table") == []
    await shop.redis.set(PRODUCTS.serving, LATER)
    await server.until_found("table", ALL)  # no search fails meanwhile
    await shop.put(make_product("p-1", "Lamp", version=2))
    await other.put(make_product("p-2", "Lamp", version=2))
    await server.until_found("lamp", ["p-2"])


async def test_after_a_restore_nothing_is_found_until_all_was_read(
    server: SearchServer, shop: StoredShop
) -> None:
    await shop.clear(PRODUCTS)
    await shop.put(make_product("p-1", "Lamp"))
    await shop.begin_build("2", NEXT_INCARNATION)
    totals = set[int]()

    async def is_followed() -> bool:
        try:
            response = await server.search("lamp")
        except RpcError:
            return False
        totals.add(response.total_count)
        return True

    await until(is_followed)
    assert totals == {1}


async def test_an_index_is_found_again_at_the_next_start(
    shop: StoredShop, redis_url: str, tmp_path: Path
) -> None:
    await shop.put(make_stock("p-1", 1), make_stock("p-2", 1))
    in_force_at = time() + CLOCKS_DIFFER.total_seconds() + 0.5
    await shop.put(make_product("p-0", "Lamp", later=(90, in_force_at), version=2))
    async with run_search_server(redis_url, tmp_path) as server:
        await server.until_found("lamp", ["p-1", "p-2"], in_stock_only=True)
    table = make_product("p-3", "Table", version=2, number=3)
    await shop.put(table, make_product("p-9", "Lamp", number=9))
    await shop.put(make_stock("p-1", 0, version=2))
    await shop.redis.delete(shop.views[Product].key("p-4"))
    await shop.redis.zremrangebyrank(shop.views[Product].index("all"), 4, 4)
    async with run_search_server(redis_url, tmp_path) as server:
        # p-3 and p-9 have changed, as has the stock of p-1, and p-4 is gone.
        assert server.follower.read_at_start == 4
        assert sorted(await server.find("lamp")) == ["p-0", "p-1", "p-2", "p-9"]
        assert (await server.search("lamp")).total_count == 4
        assert await server.find("lamp", in_stock_only=True) == ["p-2"]
        await server.until_found("lamp", ["p-0"], min_price=make_money(80))


async def test_a_damaged_index_is_filled_anew(shop: StoredShop, redis_url: str, tmp_path: Path) -> None:
    async with run_search_server(redis_url, tmp_path):
        pass
    for file in (tmp_path / PRODUCTS.projection / "0").glob("*.json"):
        file.write_text("{")
    async with run_search_server(redis_url, tmp_path) as server:
        assert sorted(await server.find("lamp")) == ALL


async def test_an_index_that_cannot_be_written_is_filled_anew(
    server: SearchServer, shop: StoredShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = [OSError("no space left on device"), ValueError("an index writer was killed")]
    commit = server.follower.index.commit

    def fail() -> None:
        if commits:
            raise commits.pop()
        commit()

    monkeypatch.setattr(server.follower.index, "commit", fail)
    await shop.put(make_product("p-1", "Table", version=2))
    await until(lambda: not commits)

    async def is_filled() -> bool:
        try:
            return await server.find("table") == ["p-1"] and len(await server.find("lamp")) == 4
        except RpcError as error:
            assert error.reason == "VIEW_REBUILDING"
            return False

    await until(is_filled)


async def test_servers_share_a_folder(shop: StoredShop, redis_url: str, tmp_path: Path) -> None:
    async with run_search_server(redis_url, tmp_path) as one, run_search_server(redis_url, tmp_path) as other:
        assert sorted(await one.find("lamp")) == sorted(await other.find("lamp")) == ALL


async def test_a_server_is_ready_once_its_index_is_filled(shop: StoredShop, redis_url: str) -> None:
    async with run_search_server(redis_url, ready=False) as server:
        await server.follower.check_ready()  # waits a moment
        assert len(await server.find("lamp")) == 5


async def test_a_server_is_not_ready_while_it_fills_its_index(
    shop: StoredShop, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_server.search.follower.READY_WITHIN", 0.01)
    monkeypatch.setattr("query_server.search.follower.BATCH_INTERVAL", 60)
    async with run_search_server(redis_url, ready=False) as server:
        with pytest.raises(NotReady, match="has 0 views so far"):
            await server.follower.check_ready()


async def test_a_server_is_ready_while_there_is_nothing_to_index(redis_url: str) -> None:
    async with run_search_server(redis_url, ready=False) as server:
        await server.follower.check_ready()
        with pytest.raises(RpcError) as error:
            await server.find("lamp")
        assert error.value.reason == "VIEW_REBUILDING"


async def test_products_are_found_while_their_stock_is_rebuilt(shop: StoredShop, redis_url: str) -> None:
    await shop.clear(STOCKS)
    async with run_search_server(redis_url) as server:
        assert sorted(await server.find("lamp")) == ALL
        with pytest.raises(RpcError) as error:
            await server.find("lamp", in_stock_only=True)
        assert error.value.reason == "VIEW_REBUILDING"
        await shop.begin_build()
        await shop.put(make_stock("p-1", 1))

        async def is_in_stock() -> bool:
            try:
                return await server.find("lamp", in_stock_only=True) == ["p-1"]
            except RpcError:
                return False

        await until(is_in_stock)


async def test_a_category_has_what_is_below_it_in_any_tree(
    shop: StoredShop, redis_url: str, tmp_path: Path
) -> None:
    numbers = random.Random(3)
    parents = {f"c{n}": f"c{numbers.randrange(n)}" if n else "" for n in range(60)}
    await shop.put(make_tree(**parents))
    await shop.put(*(make_product(f"in-{name}", "Table", category=name) for name in parents))

    def list_below(category: str) -> set[str]:
        below = {name for name, parent in parents.items() if parent == category}
        return {category}.union(*map(list_below, below))

    async def check(server: SearchServer) -> None:
        for category in [*numbers.sample(list(parents), 8), "c0"]:
            found = await server.find("table", category_id=category, page_size=100)
            assert set(found) == {f"in-{name}" for name in list_below(category)}

    for _ in range(2):  # the second one begins with the index of the first
        async with run_search_server(redis_url, tmp_path) as server:
            await check(server)
            for name in numbers.sample(list(parents)[1:], 30):
                parents[name] = f"c{numbers.randrange(int(name[1:]))}"
            name = f"c{len(parents)}"
            parents[name] = "c1"
            await shop.put(make_tree(**parents))
            await shop.put(make_product(f"in-{name}", "Table", category=name))
            await server.until_found("table", [f"in-{name}" for name in parents], page_size=100)
            await check(server)


@pytest.mark.parametrize(
    ("sort", "max_weight"),
    [(0, MAX_WEIGHT), (0, 0.0), (protocol.SearchProductsRequest.SORT_PRICE_ASCENDING, 0.0)],
)
async def test_servers_with_different_histories_rank_alike(
    shop: StoredShop,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    sort: protocol.SearchProductsRequest.Sort.ValueType,
    max_weight: float,
) -> None:
    monkeypatch.setattr(index, "MAX_WEIGHT", max_weight)  # without weights there are many equal scores
    numbers = random.Random(1)
    async with run_search_server(redis_url) as old:
        for version in range(2, 8):  # many deleted documents, in many segments
            await shop.put(
                *(
                    make_product(
                        f"q-{n:02}",
                        "Lamp " * numbers.randint(1, 2) + numbers.choice(("", "of oak")),
                        description=numbers.choice(("A lamp", "An oak")),
                        euros=numbers.randint(1, 3),
                        version=version,
                    )
                    for n in range(60)
                )
            )
            token = mint_token(INCARNATION, {f"catalogue.product.q-{n:02}": version for n in range(60)})
            await old.find("lamp", at_least_as_fresh=token)
        async with run_search_server(redis_url) as new:
            for query in ("lamp", "lamp oak", "oak"):
                request = {"page_size": 100, "sort": sort, "currency_code": "EUR"}
                assert (found := await old.find(query, **request)) == await new.find(query, **request)
                for size in (1, 7, 25):
                    assert await old.find(query, **request | {"page_size": size}) == found[:size]


@pytest.mark.parametrize("sort", [0, protocol.SearchProductsRequest.SORT_PRICE_ASCENDING])
async def test_pages_neither_skip_nor_repeat_while_prices_change(
    server: SearchServer,
    shop: StoredShop,
    redis_url: str,
    sort: protocol.SearchProductsRequest.Sort.ValueType,
) -> None:
    numbers, version, skus, token = random.Random(2), 1, list[str](), ""
    await shop.put(*(make_product(f"t-{n:02}", "Table", euros=n) for n in range(30)))
    await server.until_found("table", [f"t-{n:02}" for n in range(30)], page_size=100)
    async with run_search_server(redis_url) as other:  # servers take turns
        while True:
            page = await server.search("table", page_size=4, page_token=token, sort=sort, currency_code="EUR")
            skus += [product.sku for product in page.products]
            if not (token := page.next_page_token):
                break
            version += 1
            await shop.put(
                *(
                    make_product(f"t-{n:02}", "Table", euros=numbers.randint(1, 99), version=version)
                    for n in range(30)
                )
            )
            fresh = mint_token(INCARNATION, {f"catalogue.product.t-{n:02}": version for n in range(30)})
            await other.find("table", at_least_as_fresh=fresh)
            server, other = other, server
    assert sorted(skus) == [f"t-{n:02}" for n in range(30)]
