"""GetOrderCard and ListOrderCards: the filters, the order and the pages of lists, and what the cards show."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from diptych.catalogue.v1.types_pb2 import Product, ProductDetails
from diptych.customers.v1.types_pb2 import Customer
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1.query_service_pb2 import (
    GetOrderCardRequest,
    GetOrderCardResponse,
    ListOrderCardsRequest,
    ListOrderCardsResponse,
)
from diptych.ordering.v1.types_pb2 import CardProduct, Order, OrderCard
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from protovalidate import Validator

from contracts.view_layout import View
from query_server import joined_list_pages
from query_server.contexts import ordering
from query_server.contexts.ordering import cards as order_cards
from query_server.view_reader import ViewReader
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.order_views import ORDERS, order
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, respond

PRODUCTS, CUSTOMER = View.of(Product), View.of(Customer)
TIME, TOTAL = ListOrderCardsRequest.SORT_TIME, ListOrderCardsRequest.SORT_TOTAL
CUSTOMERS, SKUS = ("c-1", "c-2"), ("chair", "desk", "lamp")
STATES = (Order.STATE_PLACED, Order.STATE_SHIPPED, Order.STATE_RETURNED)
VALIDATOR = Validator()


def is_valid(request: ListOrderCardsRequest) -> bool:
    return not VALIDATOR.collect_violations(request)


@pytest.fixture
async def model(model: ReadModel) -> ReadModel:
    await model.redis.mset({view.ready: INCARNATION for view in order_cards.VIEWS})
    return model


async def put_product(model: ReadModel, sku: str, title: str, *pictures: str, published: bool = True) -> None:
    state = Product.STATE_PUBLISHED if published else Product.STATE_WITHDRAWN
    product = Product(sku=sku, version=1, state=state, details=ProductDetails(title=title))
    product.details.picture_urls.extend(pictures)
    await put_view(model, PRODUCTS, sku, product)


async def put_view(model: ReadModel, view: View, view_id: str, message: Message) -> None:
    fields: dict[Any, Any] = {"data": message.SerializeToString(), "version": 1}
    await model.redis.hset(view.key(view_id), mapping=fields)


async def list_page(
    model: ReadModel, request: ListOrderCardsRequest, views: ViewReader | None = None
) -> ListOrderCardsResponse:
    others = [ViewReader(model.reader, view) for view in order_cards.VIEWS]
    data = await respond(order_cards.list_order_cards, views or model.views, request, others=others)
    return ListOrderCardsResponse.FromString(data)


async def get_card(model: ReadModel, token: str = "", remaining: float | None = None) -> OrderCard:
    """Return the card of order o-1."""
    request = GetOrderCardRequest(order_id="o-1", at_least_as_fresh=token)
    others = [ViewReader(model.reader, view) for view in order_cards.VIEWS]
    data = await respond(ordering.get_order_card, model.views, request, remaining, others)
    return GetOrderCardResponse.FromString(data).card


async def list_cards(
    model: ReadModel, request: ListOrderCardsRequest, views: ViewReader | None = None
) -> list[OrderCard]:
    """Return the cards of all pages."""
    cards: list[OrderCard] = []
    while True:
        page = await list_page(model, request, views)
        assert len(page.cards) <= request.page_size
        cards += page.cards
        if not page.next_page_token:
            return cards
        request.page_token = page.next_page_token


async def list_ids(model: ReadModel, **filters: Any) -> list[str]:
    return [card.order.order_id for card in await list_cards(model, ListOrderCardsRequest(**filters))]


def create_orders(numbers: random.Random, count: int) -> list[Order]:
    return [
        order(
            f"o-{number:03}",
            customer=numbers.choice(CUSTOMERS),
            state=numbers.choice(STATES),
            placed=numbers.randrange(40) * 1_000_000,
            total=Money(
                currency_code=numbers.choice(("EUR", "CHF")),
                units=numbers.choice((0, 7, 300, 9 * 10**17)),
                nanos=numbers.choice((0, 990_000_000)),
            ),
            skus=numbers.sample(SKUS, numbers.randint(1, 3)),
        )
        for number in range(count)
    ]


def create_request(numbers: random.Random) -> ListOrderCardsRequest:
    request = ListOrderCardsRequest(page_size=numbers.randint(1, 20), sort=numbers.choice((TIME, TOTAL)))
    if request.sort == TOTAL:
        request.currency_code = numbers.choice(("EUR", "CHF"))
    while True:
        request.customer_id = numbers.choice(("", *CUSTOMERS, "c-3"))
        request.state = numbers.choice((Order.STATE_UNSPECIFIED, *STATES))
        request.sku = numbers.choice(("", *SKUS, "none"))
        for name in ("placed_from", "placed_before"):
            request.ClearField(name)
            if numbers.random() < 0.3:
                getattr(request, name).FromSeconds(numbers.randrange(-1, 42))
        if is_valid(request):
            return request


def select(orders: Sequence[Order], request: ListOrderCardsRequest) -> list[str]:
    """Return the ids of the orders that a request lists, in their order."""

    def belongs(order: Order) -> bool:
        placed = order.place_time.seconds
        return (
            request.customer_id in ("", order.customer_id)
            and request.state in (0, order.state)
            and (not request.sku or request.sku in [line.sku for line in order.shipping_groups[0].lines])
            and (not request.HasField("placed_from") or placed >= request.placed_from.seconds)
            and (not request.HasField("placed_before") or placed < request.placed_before.seconds)
            and request.currency_code in ("", order.total.currency_code)
        )

    def rank(order: Order) -> tuple[int, int, int, str]:
        amount = (order.total.units, order.total.nanos) if request.sort == TOTAL else (0, 0)
        return (*amount, order.place_time.seconds, order.order_id)

    return [order.order_id for order in sorted(filter(belongs, orders), key=rank, reverse=True)]


async def test_lists_have_the_orders_of_all_their_filters_in_order(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    numbers = random.Random(seed)
    orders = create_orders(numbers, 150)
    await model.put(*orders)
    for number in range(60):
        if number == 40:  # pages now end early, after few orders
            monkeypatch.setattr(joined_list_pages, "MAX_CHECKED", 7)
            monkeypatch.setattr(joined_list_pages, "CHUNK_SIZE", 3)
            monkeypatch.setattr(joined_list_pages, "MEMBERS_SIZE", 5)
        request = create_request(numbers)
        expected = select(orders, request)
        found = [card.order.order_id for card in await list_cards(model, request)]
        assert found == expected, request


async def test_a_card_shows_the_order_as_it_was_and_its_products_as_they_are(model: ReadModel) -> None:
    await put_product(model, "chair", "A chair", "https://pictures.test/1", "https://pictures.test/2")
    await put_product(model, "lamp", "A lamp", published=False)
    placed = order("o-1", skus=["lamp", "desk", "chair"])
    await model.put(placed)
    expected = OrderCard(
        order=placed,
        products=[
            CardProduct(sku="lamp", title="A lamp"),
            CardProduct(
                sku="chair", title="A chair", picture_url="https://pictures.test/1", is_published=True
            ),
        ],
    )
    assert await get_card(model) == expected
    await put_view(model, CUSTOMER, "c-1", Customer(customer_id="c-1", version=1, name="Ada Byron"))
    expected.customer_name = "Ada Byron"
    assert await get_card(model) == expected
    fulfilment = Fulfilment(order_id="o-1", version=1, state=Fulfilment.STATE_IN_REVIEW)
    fulfilment.state_start_time.FromSeconds(7)
    await put_view(model, View.of(Fulfilment), "o-1", fulfilment)
    expected.fulfilment.state = Fulfilment.STATE_IN_REVIEW
    expected.fulfilment.state_start_time.FromSeconds(7)
    assert await get_card(model) == expected
    assert await list_cards(model, ListOrderCardsRequest(customer_id="c-1", page_size=9)) == [expected]


@pytest.mark.parametrize(
    "stream", ["catalogue.product.chair", "customers.customer.c-1", "ordering.order.o-1"]
)
async def test_a_card_waits_for_each_write_of_its_token(model: ReadModel, stream: str) -> None:
    await put_product(model, "chair", "A chair")
    await put_view(model, CUSTOMER, "c-1", Customer(customer_id="c-1", version=1, name="Ada Byron"))
    await model.put(order("o-1", skus=["chair"]))
    await get_card(model, mint_token(INCARNATION, {stream: 1}))
    with pytest.raises(RpcError) as error:
        await get_card(model, mint_token(INCARNATION, {stream: 2}), remaining=0.1)
    assert error.value.reason == "VIEW_BEHIND"


async def test_a_page_of_cards_ends_before_it_is_too_large(model: ReadModel) -> None:
    await put_product(model, "chair", "A chair" * 20)
    await model.put(*(order(f"o-{n}", placed=n, skus=["chair"]) for n in range(10)))
    views = ViewReader(model.reader, ORDERS, max_page_bytes=1_000)
    request = ListOrderCardsRequest(customer_id="c-1", page_size=9)
    first = await list_page(model, request, views)
    assert 0 < len(first.cards) < 9
    assert first.ByteSize() < 1_200
    found = await list_cards(model, request, views)
    assert [card.order.order_id for card in found] == [f"o-{n}" for n in reversed(range(10))]


def test_a_list_by_total_has_one_currency() -> None:
    assert is_valid(ListOrderCardsRequest(sort=TOTAL, currency_code="EUR"))
    assert not is_valid(ListOrderCardsRequest(sort=TOTAL, customer_id="c-1"))
    assert not is_valid(ListOrderCardsRequest(sort=TIME, customer_id="c-1", currency_code="EUR"))
    assert not is_valid(ListOrderCardsRequest())


async def test_a_page_token_of_other_filters_is_refused(model: ReadModel) -> None:
    await model.put(*(order(f"o-{n}", placed=n, skus=["chair"]) for n in range(9)))
    filters: dict[str, Any] = {"customer_id": "c-1", "sku": "chair", "page_size": 1}
    token = (await list_page(model, ListOrderCardsRequest(**filters))).next_page_token
    changes: Sequence[dict[str, Any]] = (
        {"sku": ""},
        {"state": Order.STATE_PLACED},
        {"placed_from": Timestamp(seconds=1)},
        {"sort": TOTAL, "currency_code": "EUR"},
    )
    for change in changes:
        with pytest.raises(RpcError) as error:
            await list_page(model, ListOrderCardsRequest(page_token=token, **(filters | change)))
        assert error.value.reason == "PAGE_TOKEN_INVALID"
