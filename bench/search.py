"""`make bench-search`: searches over 100,000 products, and what others notice of them.

The products are views that are written to Redis as the projector does, since 500,000 events would
take minutes. The price that changes is that of a product with events.
"""

import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4

import grpc
import uvloop
from diptych.catalogue.v1 import command_service_pb2 as commands
from diptych.catalogue.v1 import query_service_pb2 as queries
from diptych.catalogue.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.catalogue.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.catalogue.v1.types_pb2 import CategoryTree, Product, ProductDetails
from diptych.inventory.v1.types_pb2 import Stock
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub as OrderingStub
from google.type.money_pb2 import Money
from redis.asyncio import Redis

from bench import requests, stack_host
from bench.environment import get_pid
from bench.load_generator import LoadGenerator, LoadResult, keep_sending, write_requests
from bench.process_cost import CpuMeter, read_memory
from bench.services import GET
from contracts.view_layout import View, index_member
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from runtime.process import logs

SEARCH = "/diptych.catalogue.v1.QueryService/SearchProducts"
PRODUCTS, CATEGORIES, BRANDS, WORDS = 100_000, 1_000, 500, 20_000
FLATNESS = 50
"""So the most frequent word is in one of seven products: words like "the" are in no search."""
TOP_CATEGORIES = 10
"""Every other category is below one of these, which a search names."""
RATE, IN_FLIGHT, SECONDS = 200, 64, 10.0
ORDERS, GET_RATE = 1_000, 500
PRICES = 200
"""Price changes whose way into the index is measured."""
SEEN_AT = 1_767_322_800
"""Seconds since 1970 at which the first product was published."""


CHUNK = 1_000
"""Views that are written with one pipeline."""


class Shop:
    """Products, the same in each run."""

    def __init__(self) -> None:
        self._numbers = random.Random(1)  # noqa: S311 - keeps no secret
        pick = self._numbers.choice
        self._words = [
            "".join(pick("bcdfghklmnprstvw") + pick("aeiou") for _ in range(pick((2, 3, 4))))
            for _ in range(WORDS)
        ]
        self._brands = [f"Brand {self._pick_word()}" for _ in range(BRANDS)]
        self.products = [self._make_product(number) for number in range(PRODUCTS)]
        self.stocks = [self._make_stock(product.sku) for product in self.products]

    def _pick_word(self) -> str:
        """Return a word: the n-th has the frequency 1 / (n + FLATNESS)."""
        rank = FLATNESS * ((WORDS + FLATNESS) / FLATNESS) ** self._numbers.random() - FLATNESS
        return self._words[int(rank)]

    def _pick_words(self, count: int) -> str:
        return " ".join(self._pick_word() for _ in range(count))

    def _make_product(self, number: int) -> Product:
        pick = self._numbers.randrange
        product = Product(sku=f"bench-{number}", version=5, state=Product.STATE_PUBLISHED)
        product.category_id = f"c-{pick(CATEGORIES)}"
        product.details.title = self._pick_words(6)
        product.details.brand = self._brands[int(BRANDS * self._numbers.random() ** 2)]
        product.details.description = self._pick_words(40)
        for name, count in (("colour", 20), ("material", 30), ("size", 10)):
            product.details.attributes.add(name=name, value=f"{name} {pick(count)}")
        price = product.prices.add(amount=Money(currency_code="EUR", units=pick(1, 1_000)))
        for time in (price.effective_from, product.draft_time, product.publish_time):
            time.FromSeconds(SEEN_AT + number)
        return product

    def _make_stock(self, sku: str) -> Stock:
        available = self._numbers.choice((0, 3, 9))
        return Stock(sku=sku, stock_id=f"{sku}-w", warehouse_id="w", version=1, available=available)

    def make_tree(self) -> CategoryTree:
        tree = CategoryTree(version=CATEGORIES)
        for number in range(CATEGORIES):
            parent = f"c-{number % TOP_CATEGORIES}" if number >= TOP_CATEGORIES else ""
            tree.categories.add(category_id=f"c-{number}", parent_id=parent, name="A category")
        return tree

    def generate_searches(self, count: int) -> Iterator[queries.SearchProductsRequest]:
        """Yield searches for two words of a product's title, with three filters that leave it."""
        for _ in range(count):
            product = self._numbers.choice(self.products)
            price, number = product.prices[0].amount.units, int(product.category_id[2:])
            yield queries.SearchProductsRequest(
                query=" ".join(self._numbers.sample(product.details.title.split(), 2)),
                category_id=f"c-{number % TOP_CATEGORIES}",
                min_price=Money(currency_code="EUR", units=price // 2),
                max_price=Money(currency_code="EUR", units=price * 2),
                in_stock_only=True,
            )


class SearchBench:
    """The measurements on one running stack."""

    def __init__(self, stack: Stack, generator: LoadGenerator, folder: Path) -> None:
        self._stack, self._generator, self._folder = stack, generator, folder
        (self._server,), (self._command,) = stack.of(QUERY_SERVER), stack.of(COMMAND_SERVER)
        scopes = ("catalogue.read", "catalogue.write", *stack_host.SCOPES)
        self._token = stack.token(*scopes, subject="bench")
        self._metadata = (("authorization", f"Bearer {self._token}"),)
        self._shop = Shop()

    async def run(self) -> None:
        await self._measure_starts()
        await self._measure_searches()
        await self._measure_others()
        await self._measure_prices()

    async def _measure_starts(self) -> None:
        empty = read_memory(get_pid(self._server))
        await self._server.stop()
        await self._plant()
        filled = await self._start("a start without a saved index")
        memory = read_memory(get_pid(self._server))
        await self._server.stop()
        saved = await self._start("a start with a saved index")
        await self._server.kill()
        killed = await self._start("a start after a kill")
        print(f"starts: {filled:.1f} s, {saved:.1f} s saved, {killed:.1f} s after a kill", flush=True)
        size = sum(path.stat().st_size for path in (self._folder / "search").rglob("*") if path.is_file())
        print(
            f"memory {(memory - empty) / PRODUCTS:,.0f} bytes a product, on disk {size / PRODUCTS:,.0f}",
            flush=True,
        )

    async def _start(self, name: str) -> float:
        start = perf_counter()
        await self._server.start()
        seconds = perf_counter() - start
        print(f"{name}: SERVING after {seconds:.1f} s", flush=True)
        return seconds

    async def _plant(self) -> None:
        async with Redis.from_url(self._stack.settings.redis_url) as redis:
            ids = [product.sku for product in self._shop.products]
            await _write_views(redis, View.of(Product), ids, self._shop.products)
            stock_ids = [stock.stock_id for stock in self._shop.stocks]
            await _write_views(redis, View.of(Stock), stock_ids, self._shop.stocks)
            await _write_views(redis, View.of(CategoryTree), ["tree"], [self._shop.make_tree()])

    async def _measure_searches(self) -> None:
        await self._search(seconds=3.0)  # warm-up
        meter = CpuMeter({"query server": get_pid(self._server)})
        _print("searches", f"at {RATE}/s", await self._search(rate=RATE))
        meter = CpuMeter({"query server": get_pid(self._server)})
        result = await self._search()
        cpu = meter.measure(result.ok)["query server"]
        _print("searches", f"{IN_FLIGHT} in flight, {cpu:,.0f} us CPU of the query server", result)

    async def _search(
        self, rate: float = 0.0, seconds: float = SECONDS, stop: asyncio.Event | None = None
    ) -> LoadResult:
        path = self._folder / "searches"
        if not path.exists():
            write_requests(path, self._shop.generate_searches(5_000))
        return await self._generator.run(
            *(self._server.address, SEARCH, path),
            token=self._token,
            seconds=seconds,
            rate=rate,
            in_flight=IN_FLIGHT,
            stop=stop,
        )

    async def _measure_others(self) -> None:
        async with grpc.aio.insecure_channel(self._command.address) as channel:
            stub: Any = OrderingStub(channel)
            for order in requests.generate_orders(ORDERS, "o-"):
                await stub.PlaceOrder(order, metadata=self._metadata)
        write_requests(self._folder / "gets", requests.generate_reads("o-", ORDERS, 0, ORDERS))
        _print("GetOrder", f"alone at {GET_RATE}/s", await self._get_orders())
        async with keep_sending(lambda stop: self._search(RATE, 600.0, stop), "the searches ended before"):
            _print("GetOrder", f"at {GET_RATE}/s beside {RATE} searches/s", await self._get_orders())

    async def _get_orders(self) -> LoadResult:
        return await self._generator.run(
            *(self._server.address, GET, self._folder / "gets"),
            token=self._token,
            seconds=SECONDS,
            rate=GET_RATE,
            in_flight=IN_FLIGHT,
        )

    async def _measure_prices(self) -> None:
        async with (
            grpc.aio.insecure_channel(self._command.address) as write,
            grpc.aio.insecure_channel(self._server.address) as read,
        ):
            self._commands: Any = CommandServiceStub(write)
            self._queries: Any = QueryServiceStub(read)
            details = ProductDetails(title="Uncommonly named thing")
            await self._send("DraftProduct", sku="priced")
            await self._send("ChangeDetails", sku="priced", details=details)
            await self._set_price(1)
            await self._send("PublishProduct", sku="priced")
            _print_times("a price searchable", [await self._set_price(n + 2) for n in range(PRICES)])
            async with keep_sending(
                lambda stop: self._search(RATE, 600.0, stop), "the searches ended before"
            ):
                times = [await self._set_price(n + PRICES + 2) for n in range(PRICES)]
            _print_times(f"a price searchable beside {RATE} searches/s", times)

    async def _send(self, method: str, **fields: Any) -> str:
        request = getattr(commands, f"{method}Request")(request_id=str(uuid4()), **fields)
        response = await getattr(self._commands, method)(request, metadata=self._metadata, timeout=20)
        return str(response.receipt.consistency_token)

    async def _set_price(self, units: int) -> float:
        """Return the seconds from the answer to a command until a search has found its price."""
        price = Money(currency_code="EUR", units=units)
        token = await self._send("SetPrice", sku="priced", price=price)
        start = perf_counter()
        request = queries.SearchProductsRequest(
            query="uncommonly named", min_price=price, max_price=price, at_least_as_fresh=token
        )
        response = await self._queries.SearchProducts(request, metadata=self._metadata, timeout=20)
        if response.total_count != (units > 1):
            raise RuntimeError(f"a search for the price {units} has found {response.total_count} products")
        return perf_counter() - start


async def _write_views(redis: Redis, view: View, ids: Sequence[str], messages: Sequence[Any]) -> None:
    for first in range(0, len(ids), CHUNK):
        chunk = range(first, min(first + CHUNK, len(ids)))
        async with redis.pipeline(transaction=False) as pipe:
            for position in chunk:
                view_id, message = ids[position], messages[position]
                fields: dict[Any, Any] = {"data": message.SerializeToString(), "version": message.version}
                pipe.hset(view.key(view_id), mapping=fields)
                pipe.zadd(view.index("all"), {index_member(position, view_id): 0})
            await pipe.execute()


def _print(name: str, how: str, result: LoadResult) -> None:
    latency = ", ".join(f"p{part} {result.latency[part]:.1f}" for part in ("50", "90", "99"))
    print(
        f"{name} {how}: {result.rate:,.0f}/s, {latency} ms; statuses {dict(result.statuses)},"
        f" {result.unsent} not sent",
        flush=True,
    )


def _print_times(name: str, times: Sequence[float]) -> None:
    ranked = sorted(time * 1e3 for time in times)
    print(f"{name}: p50 {ranked[len(ranked) // 2]:.1f} ms, p99 {ranked[int(len(ranked) * 0.99)]:.1f} ms")


async def main() -> None:
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        generator = await LoadGenerator.build(folder)
        variables = {"DIPTYCH_SEARCH_FOLDER": str(folder / "search")}
        async with temporary_stack(folder / "stack", environment=variables) as stack:
            await SearchBench(stack, generator, folder).run()


if __name__ == "__main__":
    logs.configure("warning", "console")
    sys.exit(uvloop.run(main()))
