"""Searches of products: words, filters and orders, on views in Redis."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from diptych.catalogue.v1 import query_service_pb2 as protocol
from diptych.catalogue.v1.types_pb2 import Product
from redis.asyncio import Redis

from query_server.contexts.catalogue import search
from query_server.search import index
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.shop_views import make_money, make_product, make_stock, make_tree
from tests.support.harness.keys import mint_token
from tests.support.harness.product_search import SearchServer, StoredShop, run_search_server
from tests.support.harness.read_model import INCARNATION

Sort = protocol.SearchProductsRequest
PRODUCTS = (
    make_product("desk", "Oak desk", brand="Nordwald", category="desks", euros=300, number=1),
    make_product("lamp", "Desk lamp", brand="Lumo", category="lamps", euros=40, number=2),
    make_product("chair", "Office chair", description="Fits every desk.", category="chairs", number=3),
    make_product("mat", "Mat", attributes={"place": "desk"}, euros=9.5, number=4),
    make_product("deskmate", "Notebook", brand="Desk", euros=4, number=5),
    make_product("cafe", "Café crème", description="Straße, ﬁne", euros=7, number=6),
    make_product("draft", "Desk of a draft", state=Product.STATE_DRAFT),
)
TREE = make_tree(home="", desks="home", lamps="home", chairs="desks", garden="")


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[StoredShop]:
    async with Redis.from_url(redis_url) as redis:
        shop = StoredShop(redis)
        await shop.begin_build()
        await shop.put(*PRODUCTS)
        await shop.put(TREE)
        await shop.put(make_stock("desk", 0), make_stock("lamp", 2), make_stock("lamp", 0, warehouse="v"))
        yield shop


@pytest.fixture
async def server(shop: StoredShop, redis_url: str) -> AsyncIterator[SearchServer]:
    async with run_search_server(redis_url) as server:
        yield server


async def test_words_count_by_the_place_where_they_are(server: SearchServer) -> None:
    # The titles come first, the shorter one or the one that begins so; then brand, attribute, description.
    found = await server.find("desk")
    assert set(found[:2]) == {"desk", "lamp"}
    assert found[2:] == ["deskmate", "mat", "chair"]
    assert await server.find("desk lamp") == ["lamp"]
    assert await server.find("the desks' lamps") == ["lamp"], "stems, and stop words are left out"


async def test_words_are_normalised_and_the_last_may_be_a_beginning(server: SearchServer) -> None:
    for query, skus in (
        ("CAFE creme", ["cafe"]),
        ("cafe\u0301", ["cafe"]),
        ("STRASSE fine", ["cafe"]),
        ("cafe cr", ["cafe"]),
        ("cr cafe", []),
        ("offic", ["chair"]),
        ("not", ["deskmate"]),
        ("cafe nothing", []),
    ):
        assert await server.find(query) == skus, query


async def test_one_typing_error_is_forgiven_where_nothing_else_is_found(server: SearchServer) -> None:
    for query in ("notebok", "ntoebook", "ofice chair", "chiar office"):
        found = await server.search(query)
        assert (len(found.products), found.corrected) == (1, True), query
    assert not (await server.search("ofice chiar")).products, "that are two"
    assert not (await server.search("lam")).corrected
    assert (await server.find("chair", brands=["Lumo"])) == [], "a filter is no typing error"


async def test_filters(server: SearchServer) -> None:
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"category_id": "home"}, ["chair", "desk", "lamp"]),
        ({"category_id": "desks"}, ["chair", "desk"]),
        ({"category_id": "garden"}, []),
        ({"brands": ["Lumo", "Desk"]}, ["deskmate", "lamp"]),
        ({"attributes": [{"name": "place", "values": ["desk", "wall"]}]}, ["mat"]),
        ({"min_price": make_money(9.5), "max_price": make_money(40)}, ["chair", "lamp", "mat"]),
        ({"min_price": make_money(9.51)}, ["chair", "desk", "lamp"]),
        ({"max_price": make_money(9.49)}, ["deskmate"]),
        ({"currency_code": "USD"}, []),
        ({"in_stock_only": True}, ["lamp"]),
        ({"in_stock_only": True, "category_id": "desks"}, []),
    ]
    for filters, skus in cases:
        assert sorted(await server.find("desk", **filters)) == skus, filters


async def test_orders(server: SearchServer) -> None:
    for sort, skus in (
        (Sort.SORT_PRICE_ASCENDING, ["deskmate", "mat", "chair", "lamp", "desk"]),
        (Sort.SORT_PRICE_DESCENDING, ["desk", "lamp", "chair", "mat", "deskmate"]),
        (Sort.SORT_NEWEST, ["deskmate", "mat", "chair", "lamp", "desk"]),
    ):
        found = await server.find_all("desk", page_size=2, sort=sort, currency_code="EUR")
        assert found == skus, sort


async def test_facets_count_what_was_found(server: SearchServer, shop: StoredShop) -> None:
    first = await server.search("desk", page_size=2)
    assert first.total_count == 5
    check_facets(first.facets)
    second = await server.search("desk", page_size=2, page_token=first.next_page_token)
    assert (second.total_count, second.HasField("facets")) == (5, False)
    more = [make_product(f"more-{n}", "Desk", attributes={"place": "desk"}) for n in range(40)]
    await shop.put(*more)  # more than are read one by one
    token = mint_token(INCARNATION, {f"catalogue.product.{each.sku}": 1 for each in more})
    many = (await server.search("desk", at_least_as_fresh=token)).facets
    assert [(each.name, each.value, each.count) for each in many.attributes] == [("place", "desk", 41)]
    assert (len(many.brands), many.in_stock) == (3, 1)


def check_facets(facets: protocol.Facets) -> None:
    assert {each.brand: each.count for each in facets.brands} == {"Nordwald": 1, "Lumo": 1, "Desk": 1}
    assert [each.category_id for each in facets.categories] == ["chairs", "desks", "lamps"]
    assert [(each.name, each.value, each.count) for each in facets.attributes] == [("place", "desk", 1)]
    assert facets.in_stock == 1


async def test_pages_end_after_the_results_that_are_listed(
    server: SearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = await server.find_all("desk", page_size=2)
    assert len(every) == 5
    for limit in (3, 4):
        for module in (index, search):
            monkeypatch.setattr(module, "MAX_RESULTS", limit)
        assert await server.find_all("desk", page_size=2) == every[:limit]


async def test_words_are_completed(server: SearchServer) -> None:
    async def suggest(prefix: str) -> list[tuple[str, int]]:
        response = await server.calls.call("SuggestProducts", prefix=prefix)
        return [(each.query, each.count) for each in response.suggestions]

    assert await suggest("De") == [("desk", 4)], "not of the description, nor of a draft"
    assert await suggest("desk la") == [("desk lamp", 1)]
    assert await suggest("zz") == []


async def test_bad_searches_are_refused(server: SearchServer) -> None:
    refused = {
        "category_id": {"category_id": "unknown"},
        "page_token": {"page_token": "AAAA"},
        "query: has more than 10 words": {"query": " ".join("bcdefghijklm")},
        "query: has no word": {"query": "- !"},
        "query: has the forbidden character U+202E": {"query": "\u202edesk"},
        "query: has the forbidden character U+0000": {"query": "de\u0000sk"},
        "max_price: is below min_price": {"min_price": make_money(2), "max_price": make_money(1)},
        "max_price: has another currency": {"currency_code": "USD", "max_price": make_money(1)},
        "currency_code: is needed": {"sort": Sort.SORT_PRICE_ASCENDING},
    }
    for message, request in refused.items():
        with pytest.raises(RpcError, match=re.escape(message)):
            await server.search(**{"query": "desk"} | request)
    assert await server.find("стул") == [], "another script is no fault"
    for prefix in ("", "a", "a b", " ".join("bcdefghijklm") + " lamp"):
        with pytest.raises(RpcError):
            await server.calls.call("SuggestProducts", prefix=prefix)
