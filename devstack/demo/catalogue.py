"""The demo's part about the catalogue, with prices that come into force by themselves."""

from datetime import UTC, datetime, timedelta
from typing import Any

from diptych.catalogue.v1 import command_service_pb2 as commands
from diptych.catalogue.v1 import query_service_pb2 as queries
from diptych.catalogue.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.catalogue.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.catalogue.v1.types_pb2 import Attribute, ProductDetails
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych_client import Rejection, aio
from google.type.money_pb2 import Money

from devstack.demo.narration import UnexpectedResult, check, print_line, print_step
from devstack.demo.requests import PRICES, format_amount
from devstack.stack import Stack

CATEGORIES = {"home": "", "lighting": "home", "office": "", "furniture": "office"}
"""Category to the one above it."""
PRODUCTS = {
    "lamp-1": ("A lamp", "lighting"),
    "desk-1": ("A desk", "furniture"),
    "vase-1": ("A vase", "home"),
}


class CatalogueDemo:
    """Adds categories and products, moves a category, and browses."""

    def __init__(self, stack: Stack) -> None:
        token = stack.token("catalogue.write", "catalogue.read")
        self._write = aio.connect(stack.settings.command_address, token=token, tls=stack.credentials or False)
        self._read = aio.connect(stack.settings.query_address, token=token, tls=stack.credentials or False)
        self._commands: Any = CommandServiceStub(self._write.channel)
        self._queries: Any = QueryServiceStub(self._read.channel)

    async def run(self) -> None:
        """Run all steps.

        Raises:
            UnexpectedResult, Rejection, OutcomeUnknown: a step had another result.
        """
        async with self._write, self._read:
            print_step("Add categories, and publish three products with today's price and tomorrow's")
            for category, parent in CATEGORIES.items():
                added = await self._send(
                    "AddCategory", category_id=category, parent_id=parent, name=category.title()
                )
            for sku, product in PRODUCTS.items():
                published = await self._publish(sku, *product)
            print_step("Browse a category with all below it, before and after another one is moved there")
            await self._browse("home", added, ["vase-1", "lamp-1"])
            moved = await self._send("MoveCategory", category_id="office", parent_id="home")
            await self._browse("home", moved, ["vase-1", "desk-1", "lamp-1"])
            print_step("Search for words, with a typing error, in a category, the cheapest first")
            await self._search("a lamp", published, ["lamp-1"])
            await self._search("dsek", published, ["desk-1"], corrected=True)
            by_price = queries.SearchProductsRequest.SORT_PRICE_ASCENDING
            filters: dict[str, Any] = {"category_id": "home", "sort": by_price, "currency_code": "EUR"}
            await self._search("white", published, sorted(PRODUCTS, key=PRICES.__getitem__), **filters)
            print_step("Move a category below itself")
            await self._make_cycle()

    async def _send(self, method: str, **fields: Any) -> Receipt:
        request = getattr(commands, f"{method}Request")(**fields)
        return await self._write.send(getattr(self._commands, method), request)

    async def _publish(self, sku: str, title: str, category_id: str) -> Receipt:
        units, nanos = PRICES[sku]
        price = Money(currency_code="EUR", units=units, nanos=nanos)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        details = ProductDetails(title=title, attributes=[Attribute(name="colour", value="white")])
        await self._send("DraftProduct", sku=sku)
        await self._send("ChangeDetails", sku=sku, details=details)
        await self._send("SetPrice", sku=sku, price=price)
        await self._send(
            "SetPrice",
            sku=sku,
            price=Money(currency_code="EUR", units=units + 1),
            effective_from=tomorrow,
        )
        await self._send("AssignCategory", sku=sku, category_id=category_id)
        receipt = await self._send("PublishProduct", sku=sku)
        get = queries.GetProductRequest(sku=sku)
        product = (await self._read.query(self._queries.GetProduct, get, fresh=receipt)).product
        prices = " then ".join(format_amount(each.amount) for each in product.prices)
        print_line(f"{sku}  {product.details.title}, {prices}")
        return receipt

    async def _browse(self, category_id: str, fresh: Receipt, expected: list[str]) -> None:
        request = queries.BrowseCategoryRequest(category_id=category_id, include_descendants=True)
        response = await self._read.query(self._queries.BrowseCategory, request, fresh=fresh)
        skus = [product.sku for product in response.products]
        check(skus == expected, f"{category_id} has {', '.join(expected)}", skus)

    async def _search(
        self, query: str, fresh: Receipt, expected: list[str], *, corrected: bool = False, **filters: Any
    ) -> None:
        request = queries.SearchProductsRequest(query=query, **filters)
        response = await self._read.query(self._queries.SearchProducts, request, fresh=fresh)
        found = [product.sku for product in response.products], response.corrected
        text = f'"{query}" finds {", ".join(expected)}{", corrected" if corrected else ""}'
        check(found == (expected, corrected), text, found)

    async def _make_cycle(self) -> None:
        try:
            receipt = await self._send("MoveCategory", category_id="home", parent_id="furniture")
        except Rejection as rejection:
            check(rejection.reason == "CATEGORY_CYCLE", "rejected: CATEGORY_CYCLE", rejection)
        else:
            raise UnexpectedResult(f"the move was not rejected: {receipt}")
