"""Quotes of an order's lines: what they say has to be true of the order, and who may do without."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest
from diptych.pricing.v1 import quote_pb2
from hypothesis import given
from hypothesis import strategies as st

from command_server.contexts.ordering import CONTEXT
from command_server.contexts.ordering.domain.messages import (
    AddOrderLine,
    OrderLine,
    OrderLineRemoved,
    PlaceOrder,
    Quote,
)
from command_server.contexts.ordering.domain.order import DECIDER, ORDER, Order, decide
from command_server.kernel.decider import InvalidValue, Rejected
from command_server.kernel.money import Money
from contracts.key_ring import KeyRing, Purpose
from contracts.quotes import Quotes
from contracts.signed_tokens import TokenSigner
from diptych_testing.scenario import NOW, Scenario
from tests.support.builders.orders import LINE, OWN_PRICES, PLACE, PLACED, SECOND
from tests.support.harness.keys import FILE, get_ring

order = Scenario(ORDER, DECIDER)
FIRST_QUOTE = Quote(LINE.sku, LINE.unit_price, "c-1", NOW + timedelta(minutes=1))
SECOND_QUOTE = Quote(SECOND.sku, SECOND.unit_price, "c-1", NOW + timedelta(minutes=1))


def place(*values: Quote | InvalidValue, scopes: frozenset[str] = frozenset()) -> PlaceOrder:
    signed = {f"quote {number}": value for number, value in enumerate(values)}
    return replace(PLACE, quotes=tuple(signed), signed_values=signed, scopes=scopes)


def add(value: Quote) -> AddOrderLine:
    line = replace(LINE, sku="sku-3")
    return AddOrderLine("o-1", "", line, "a quote", signed_values={"a quote": value})


def test_an_order_with_a_quote_for_every_line_is_placed() -> None:
    order.given().when(place(FIRST_QUOTE, SECOND_QUOTE)).then(PLACED)
    order.given().when(place(SECOND_QUOTE, FIRST_QUOTE)).then(PLACED)


def test_a_line_without_a_quote_needs_the_scope_for_own_prices() -> None:
    order.given().when(place(FIRST_QUOTE)).then_rejected("QUOTE_MISSING", sku=SECOND.sku)
    order.given().when(place()).then_rejected("QUOTE_MISSING", sku=LINE.sku)
    order.given().when(place(FIRST_QUOTE, scopes=OWN_PRICES)).then(PLACED)


@pytest.mark.parametrize("scopes", [frozenset(), OWN_PRICES], ids=["none", "own prices"])
@pytest.mark.parametrize(
    ("changed", "reason", "details"),
    [
        ({"customer_id": "c-2"}, "QUOTE_OF_ANOTHER_CUSTOMER", {}),
        ({"expires_at": NOW}, "QUOTE_EXPIRED", {"expires_at": str(NOW)}),
        (
            {"price": Money("EUR", 5, 1)},
            "QUOTE_OF_ANOTHER_PRICE",
            {"quoted": "5.000000001 EUR", "ordered": "5.000000000 EUR"},
        ),
        (
            {"price": Money("USD", 5)},
            "QUOTE_OF_ANOTHER_PRICE",
            {"quoted": "5.000000000 USD", "ordered": "5.000000000 EUR"},
        ),
    ],
)
def test_a_quote_that_says_something_else_is_refused(
    changed: dict[str, Any], reason: str, details: dict[str, str], scopes: frozenset[str]
) -> None:
    command = place(FIRST_QUOTE, replace(SECOND_QUOTE, **changed), scopes=scopes)
    order.given().when(command).then_rejected(reason, sku=SECOND.sku, **details)


def test_a_quote_of_no_line_is_refused() -> None:
    other = replace(SECOND_QUOTE, sku="sku-9")
    order.given().when(place(FIRST_QUOTE, SECOND_QUOTE, other)).then_rejected("QUOTE_OF_NO_LINE", sku="sku-9")


def test_of_several_quotes_of_an_article_one_has_to_match() -> None:
    dearer = replace(FIRST_QUOTE, price=Money("EUR", 99))
    order.given().when(place(dearer, FIRST_QUOTE, SECOND_QUOTE)).then(PLACED)


def test_mixed_currencies_are_refused_though_each_line_is_quoted() -> None:
    dollars = replace(SECOND, unit_price=Money("USD", 5))
    command = place(FIRST_QUOTE, replace(SECOND_QUOTE, price=Money("USD", 5)))
    (group,) = command.shipping_groups
    command = replace(command, shipping_groups=(replace(group, lines=(LINE, dollars)),))
    order.given().when(command).then_rejected("ORDER_CURRENCY_MIXED", currencies="EUR and USD")


def test_an_added_line_has_a_quote_for_the_customer_of_the_order() -> None:
    quote = replace(FIRST_QUOTE, sku="sku-3")
    (event,) = order.given(PLACED).when(add(quote))._decide()
    assert event.line.sku == "sku-3"
    order.given(PLACED).when(add(replace(quote, customer_id="c-2"))).then_rejected(
        "QUOTE_OF_ANOTHER_CUSTOMER", sku="sku-3"
    )
    order.given(PLACED).when(replace(add(quote), quote="")).then_rejected("QUOTE_MISSING", sku="sku-3")


def sign(**changed: Any) -> str:
    quote = quote_pb2.Quote(sku=LINE.sku, customer_id="c-1", **changed)
    quote.price.currency_code, quote.price.units, quote.price.nanos = "EUR", 9, 990_000_000
    quote.expires_at.FromDatetime(FIRST_QUOTE.expires_at)
    return Quotes(get_ring).sign(quote)


def verify(*quotes: str) -> PlaceOrder:
    """Return the command of a request with these quotes, as the edge passes it on."""
    verifier = CONTEXT.signed_values
    assert verifier
    request = PlaceOrderRequest(order_id="o-1", customer_id="c-1", quotes=quotes)
    command = replace(PLACE, quotes=tuple(request.quotes), scopes=frozenset())
    verified: PlaceOrder = verifier.build_completion(get_ring)(command)
    return verified


def test_a_signed_quote_is_read() -> None:
    quote = sign()
    assert verify(quote).signed_values == {quote: FIRST_QUOTE}


def revoke(purpose: bytes) -> KeyRing:
    head, tail = FILE.split(b'"purpose": "%s"' % purpose)
    return KeyRing.parse(head + b'"purpose": "%s"' % purpose + tail.replace(b'"active"', b'"revoked"', 1))


@pytest.mark.parametrize(
    ("token", "cause"),
    [
        ("no quote", "MALFORMED"),
        (sign()[:-8] + "AAAAAAE=", "MALFORMED"),
        (TokenSigner(Purpose.PAGE_TOKENS, get_ring).sign(b"sku"), "UNKNOWN_KEY"),
        (TokenSigner(Purpose.QUOTE, get_ring).sign(b"\xff"), "MALFORMED"),
        (TokenSigner(Purpose.QUOTE, get_ring).sign(b"sku", "another use"), "WRONG_SIGNATURE"),
    ],
    ids=["text", "cut", "other purpose", "no message", "other use"],
)
def test_a_forged_quote_is_refused_on_record(token: str, cause: str) -> None:
    order.given().when(verify(sign(), token)).then_rejected("QUOTE_INVALID", index="1", cause=cause)


def test_a_quote_of_a_revoked_key_is_refused() -> None:
    verifier = CONTEXT.signed_values
    assert verifier
    command = verifier.build_completion(lambda: revoke(b"quote"))(replace(PLACE, quotes=(sign(),)))
    order.given().when(command).then_rejected("QUOTE_INVALID", index="0", cause="REVOKED_KEY")


LAMP = replace(LINE, quantity=100, unit_price=Money("EUR", 0))
"""A hundred lamps for nothing."""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((), "QUOTE_MISSING"),
        ((FIRST_QUOTE,), "QUOTE_OF_ANOTHER_PRICE"),
        ((replace(FIRST_QUOTE, price=LAMP.unit_price, customer_id="c-2"),), "QUOTE_OF_ANOTHER_CUSTOMER"),
        ((replace(FIRST_QUOTE, price=LAMP.unit_price, expires_at=NOW),), "QUOTE_EXPIRED"),
        ((replace(FIRST_QUOTE, price=LAMP.unit_price, sku="sku-9"),), "QUOTE_MISSING"),
    ],
    ids=["no quote", "of its price", "of another customer", "expired", "of another article"],
)
def test_nobody_makes_up_a_price(values: tuple[Quote, ...], reason: str) -> None:
    (group,) = PLACE.shipping_groups
    command = replace(place(*values), shipping_groups=(replace(group, lines=(LAMP,)),))
    signed = dict(zip(["a quote"], values, strict=False))
    line = AddOrderLine("o-1", "", LAMP, next(iter(signed), ""), signed_values=signed)
    removed = OrderLineRemoved("o-1", "main", LINE.sku, SECOND.unit_price, NOW)
    for attempt in (order.given().when(command), order.given(PLACED, removed).when(line)):
        with pytest.raises(Rejected) as rejected:
            attempt._decide()
        assert rejected.value.reason == reason


skus = st.sampled_from(["lamp", "desk"])
prices = st.builds(Money, st.sampled_from(["EUR", "USD"]), st.integers(0, 1), st.sampled_from([0, 1]))
quoted = st.builds(
    Quote,
    skus,
    prices,
    st.sampled_from(["c-1", "c-1", "c-2"]),
    st.sampled_from([-1, 0, 1, 60]).map(lambda seconds: NOW + timedelta(seconds=seconds)),
)
lines = st.builds(OrderLine, skus, st.just("A thing"), st.integers(1, 10_000), prices)


@given(lines=st.lists(lines, min_size=1, max_size=2), quotes=st.lists(quoted, max_size=4))
def test_each_line_of_a_placed_order_has_the_price_of_a_valid_quote(
    lines: list[OrderLine], quotes: list[Quote]
) -> None:
    (group,) = PLACE.shipping_groups
    groups = [replace(group, shipping_group_id=str(n), lines=(line,)) for n, line in enumerate(lines)]
    placed: Any
    try:
        (placed,) = decide(replace(place(*quotes), shipping_groups=tuple(groups)), Order(), NOW)
    except Rejected:
        return
    valid = {(each.sku, each.price) for each in quotes if each.customer_id == "c-1" and each.expires_at > NOW}
    ordered = [line for part in placed.groups for line in part.lines]
    assert {(line.sku, line.unit_price) for line in ordered} <= valid
    nanos = sum(line.quantity * (line.unit_price.units * 10**9 + line.unit_price.nanos) for line in ordered)
    assert placed.total.units * 10**9 + placed.total.nanos == nanos
