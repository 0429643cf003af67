"""The catalogue through the whole stack: commands, lists of several views, and independent verification."""

import asyncio
from typing import Any
from uuid import uuid4

from diptych.catalogue.v1 import command_service_pb2 as commands
from diptych.catalogue.v1 import query_service_pb2 as queries
from diptych.catalogue.v1.types_pb2 import Product, ProductDetails
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_OPENING
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.ordering.v1.types_pb2 import OrderLine
from google.type.money_pb2 import Money

from devstack.demo.requests import order_of
from devstack.stack import Stack
from operations.verify.verification import verify
from tests.support.harness.caller import Caller

RUN = uuid4().hex[:8]
HOME, SEATS, OFFICE = (f"{name}-{RUN}" for name in ("home", "seats", "office"))


async def publish(caller: Caller, sku: str, category_id: str) -> None:
    """Publish a product, and wait until its view says so."""
    details = ProductDetails(title=f"Title of {sku}")
    price = Money(currency_code="EUR", units=9)
    await caller.execute(commands.DraftProductRequest(sku=sku))
    await caller.execute(commands.ChangeDetailsRequest(sku=sku, details=details))
    await caller.execute(commands.SetPriceRequest(sku=sku, price=price))
    await caller.execute(commands.AssignCategoryRequest(sku=sku, category_id=category_id))
    token = (await caller.execute(commands.PublishProductRequest(sku=sku))).consistency_token
    await caller.query(queries.GetProductRequest(sku=sku, at_least_as_fresh=token))


async def browse(caller: Caller, category_id: str, token: str, *, below: bool = True) -> list[str]:
    skus, page_token = [], ""
    while True:
        request = queries.BrowseCategoryRequest(
            category_id=category_id,
            include_descendants=below,
            page_size=2,
            page_token=page_token,
            at_least_as_fresh=token,
        )
        page = await caller.query(request)
        skus += [product.sku for product in page.products]
        if not (page_token := page.next_page_token):
            return skus


async def search(caller: Caller, sku: str, listed: list[str], token: str) -> None:
    """Find products, one of them in stock once its goods have arrived, and fail to search otherwise."""

    async def find(token: str, **filters: Any) -> list[str]:
        request = queries.SearchProductsRequest(query=f"title {RUN}", at_least_as_fresh=token, **filters)
        return sorted(product.sku for product in (await caller.query(request)).products)

    assert await find(token) == sorted(listed)
    assert await find(token, in_stock_only=True) == []
    await caller.execute(inventory.RegisterProductRequest(sku=sku, title="A rug"))
    goods = inventory.ReceiveStockRequest(
        sku=sku, warehouse_id="w-1", quantity=2, delivery_note="n-1", reason=RECEIPT_REASON_OPENING
    )
    received = (await caller.execute(goods)).consistency_token
    assert await find(received, in_stock_only=True) == [sku]
    suggest = queries.SuggestProductsRequest(prefix="tit", at_least_as_fresh=token)
    (suggestion,) = (await caller.query(suggest)).suggestions
    assert (suggestion.query, suggestion.count) == ("title", len(listed))
    for text in ("", "\u202e rug", "a " * 5_000, " - ", "a b c d e f g h i j k l"):
        request = queries.SearchProductsRequest(query=text)
        assert await caller.rejection_reason(request) == "REQUEST_INVALID"


async def order_with_quotes(caller: Caller, sku: str, withdrawn: str) -> None:
    """Order a product at its quoted price, and fail to order it otherwise."""

    async def quote(customer_id: str) -> Any:
        return await caller.query(queries.QuotePricesRequest(customer_id=customer_id, skus=[withdrawn, sku]))

    (quoted,) = (response := await quote("ada")).quotes
    assert (quoted.sku, list(response.unavailable_skus)) == (sku, [withdrawn])
    await caller.execute(make_order(quoted, quoted.quote))
    (of_another,) = (await quote("bob")).quotes
    forged = f"AAAA{quoted.quote[4:]}"
    refused = {"QUOTE_OF_ANOTHER_CUSTOMER": of_another.quote, "QUOTE_INVALID": forged}
    for reason, text in refused.items():
        assert await caller.rejection_reason(make_order(quoted, text)) == reason
    assert await caller.rejection_reason(make_order(quoted)) == "QUOTE_MISSING"


def make_order(quoted: queries.QuotedPrice, *quotes: str) -> PlaceOrderRequest:
    order = order_of("ada", 1)
    order.request_id = ""
    line = OrderLine(sku=quoted.sku, title="A thing", quantity=1, unit_price=quoted.price)
    del order.lines[:]
    order.lines.append(line)
    order.quotes.extend(quotes)
    return order


async def test_products_are_browsed_in_a_tree_that_changes(stack: Stack) -> None:
    scopes = ("catalogue.write", "catalogue.read", "catalogue.quote", "ordering.place", "inventory.write")
    caller = Caller(stack, *scopes)
    try:
        assert await caller.rejection_reason(queries.BrowseCategoryRequest(category_id=HOME)) == (
            "CATEGORY_NOT_FOUND"
        )
        for category_id, parent_id in ((HOME, ""), (SEATS, HOME), (OFFICE, "")):
            added = await caller.execute(
                commands.AddCategoryRequest(category_id=category_id, parent_id=parent_id, name="A name")
            )
        placed = (
            (f"rug-{RUN}", HOME),
            (f"chair-{RUN}", SEATS),
            (f"stool-{RUN}", SEATS),
            (f"desk-{RUN}", OFFICE),
        )
        for sku, category_id in placed:
            await publish(caller, sku, category_id)
        token = added.consistency_token
        rug, chair, stool, desk = (sku for sku, _ in placed)
        assert await browse(caller, HOME, token) == [stool, chair, rug]
        assert await browse(caller, HOME, token, below=False) == [rug]

        # Each of two moves at once is harmless; together they would be a cycle.
        moves = [
            commands.MoveCategoryRequest(category_id=one, parent_id=other)
            for one, other in ((HOME, OFFICE), (OFFICE, SEATS))
        ]
        outcomes = await asyncio.gather(*map(caller.execute, moves), return_exceptions=True)
        (moved,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        top = OFFICE if moved is outcomes[0] else HOME
        assert await browse(caller, top, moved.consistency_token) == [desk, stool, chair, rug]

        withdrawn = await caller.execute(commands.WithdrawProductRequest(sku=stool))
        token = withdrawn.consistency_token
        assert await browse(caller, top, token) == [desk, chair, rug]
        batch = await caller.query(
            queries.BatchGetProductsRequest(skus=[stool, "none", rug], at_least_as_fresh=token)
        )
        states = [(product.sku, product.state) for product in batch.products]
        assert states == [(stool, Product.STATE_WITHDRAWN), (rug, Product.STATE_PUBLISHED)]
        assert list(batch.missing_skus) == ["none"]
        await search(caller, rug, [desk, chair, rug], token)
        await order_with_quotes(caller, rug, stool)
        draft = commands.ChangeDetailsRequest(sku=rug, details=ProductDetails(title="Rug\u202e"))
        assert await caller.rejection_reason(draft) == "TEXT_CHARACTER_FORBIDDEN"
        report = await verify(stack.settings)
        assert report.clean, report.problems
    finally:
        await caller.close()
