"""Rules of the catalogue: products, their texts and prices, and the category tree."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.catalogue import CONTEXT
from command_server.contexts.catalogue.domain import category_tree, prices, product
from command_server.contexts.catalogue.domain.messages import (
    AddCategory,
    AssignCategory,
    Attribute,
    ChangeDetails,
    DetailsChanged,
    DraftProduct,
    MoveCategory,
    PriceSet,
    ProductDetails,
    ProductDrafted,
    PublishProduct,
    RenameCategory,
    SetPrice,
    WithdrawProduct,
)
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW, Scenario
from diptych_testing.world import World, names_of
from tests.support.models.diagrams import find_transitions, read_diagram

products = Scenario(product.PRODUCT, product.DECIDER)
DETAILS = ProductDetails(
    "Oak chair", "A chair.", "Plank", (Attribute("wood", "oak"),), ("https://p.example/1",)
)
DRAFT, CHANGE, PUBLISH, WITHDRAW = (
    DraftProduct("chair"),
    ChangeDetails("chair", DETAILS),
    PublishProduct("chair"),
    WithdrawProduct("chair"),
)
DRAFTED, CHANGED = ProductDrafted("chair", NOW), DetailsChanged("chair", DETAILS, NOW)


def eur(units: int) -> Money:
    return Money("EUR", units)


def price(units: int, **later: int) -> SetPrice:
    return SetPrice("chair", eur(units), NOW + timedelta(**later) if later else None)


def make_world(*commands: Any) -> World:
    world = World(*CONTEXT.deciders)
    world.execute(*commands)
    return world


def test_a_product_is_published_once_it_has_a_title_and_a_price_in_force() -> None:
    world = make_world(DRAFT)
    world.assert_rejected(PUBLISH, "PRODUCT_NEEDS_TITLE")
    world.execute(CHANGE, price(9, hours=1))
    world.assert_rejected(PUBLISH, "PRODUCT_NEEDS_PRICE")
    world.now += timedelta(hours=1)
    assert names_of(world.execute(PUBLISH)) == ["ProductPublished"]
    world.assert_rejected(ChangeDetails("chair", ProductDetails()), "PRODUCT_NEEDS_TITLE")


def test_the_states_of_a_product_match_their_diagram() -> None:
    draft = [DRAFT, CHANGE, price(9)]
    transitions = find_transitions(
        make_world,
        product.PRODUCT.stream("chair"),
        {"[*]": [], "DRAFT": draft, "PUBLISHED": [*draft, PUBLISH], "WITHDRAWN": [*draft, PUBLISH, WITHDRAW]},
        [DRAFT, CHANGE, price(9), PUBLISH, WITHDRAW],
        timedelta(hours=2),
    )
    assert set(transitions) == read_diagram("catalogue.md")


def test_repeating_a_command_changes_nothing() -> None:
    world = make_world()
    assign = [AddCategory("seats", "", "Seats"), AssignCategory("chair", "seats")]
    commands = [DRAFT, CHANGE, price(9), price(12, hours=1), *assign, PUBLISH, WITHDRAW]
    for command in commands:
        assert world.execute(command)
        world.assert_unchanged(command)
    moves = [
        RenameCategory("seats", "Chairs"),
        AddCategory("home", "", "Home"),
        MoveCategory("seats", "home"),
    ]
    for command in moves:
        assert world.execute(command)
        world.assert_unchanged(command)


def test_what_was_not_added_is_not_found() -> None:
    world = make_world()
    command: Any
    for command in (CHANGE, price(9), PUBLISH, WITHDRAW, AssignCategory("chair", "")):
        world.assert_rejected(command, "PRODUCT_NOT_FOUND", sku="chair")
    world.execute(DRAFT)
    world.assert_rejected(WITHDRAW, "PRODUCT_NOT_PUBLISHED")
    for command in (
        AssignCategory("chair", "seats"),
        RenameCategory("seats", "Seats"),
        MoveCategory("seats", ""),
        AddCategory("stools", "seats", "Stools"),
    ):
        world.assert_rejected(command, "CATEGORY_NOT_FOUND", category_id="seats")


@pytest.mark.parametrize("sku", ["", "ch air", "cha\u0456r", "a" * 65, "chair\n"])
def test_a_sku_is_a_plain_code_in_ascii(sku: str) -> None:
    products.given().when(DraftProduct(sku)).then_rejected(
        "FIELD_INVALID", field="sku", rule="must match [A-Za-z0-9_-]{1,64}"
    )


@pytest.mark.parametrize(
    "character", ["\x07", "\x9f", "\n", "\u202e", "\u2066", "\u200f", "\u061c", "\u200b", "\ufeff", "\u2028"]
)
@pytest.mark.parametrize("field", ["title", "brand", "description", "attributes[0].value"])
def test_control_and_bidirectional_characters_are_refused(character: str, field: str) -> None:
    text = f"Oak{character}chair"
    changed = {field: text} if "[" not in field else {"attributes": (Attribute("wood", text),)}
    scenario = products.given(DRAFTED).when(ChangeDetails("chair", replace(DETAILS, **changed)))
    if (field, character) == ("description", "\n"):
        return scenario.then(DetailsChanged("chair", replace(DETAILS, description=text), NOW))
    code = f"U+{ord(character):04X}"
    scenario.then_rejected("TEXT_CHARACTER_FORBIDDEN", field=f"details.{field}", character=code)
    return None


def test_texts_are_normalised() -> None:
    decomposed = replace(DETAILS, title="  Fauteuil re\u0301tro ", brand="\U0001f469\u200d\U0001f52c")
    cleaned = replace(decomposed, title="Fauteuil r\u00e9tro")
    products.given(DRAFTED).when(ChangeDetails("chair", decomposed)).then(
        DetailsChanged("chair", cleaned, NOW)
    )
    products.given(DRAFTED, DetailsChanged("chair", cleaned, NOW)).when(
        ChangeDetails("chair", decomposed)
    ).then()
    world = make_world(AddCategory("cafe", "", "Cafe\u0301"))
    world.assert_unchanged(AddCategory("cafe", "", "Caf\u00e9"))
    world.assert_rejected(RenameCategory("cafe", " "), "TEXT_EMPTY", field="name")


@pytest.mark.parametrize(
    "url",
    ["http://p.example/1", "https://", "https:///1", "javascript:alert(1)", "https://p.example/\u0430",
     "https://user@p.example/1", "https://p.example/a b"],
)  # fmt: skip
def test_a_picture_has_an_address_of_https(url: str) -> None:
    details = replace(DETAILS, picture_urls=("https://p.example/1", url))
    make_world(DRAFT).assert_rejected(ChangeDetails("chair", details), "PICTURE_URL_INVALID", index="1")


def test_attributes_have_different_names() -> None:
    details = replace(DETAILS, attributes=(Attribute("wood", "oak"), Attribute(" wood", "ash")))
    make_world(DRAFT).assert_rejected(ChangeDetails("chair", details), "ATTRIBUTE_REPEATED", name="wood")


@pytest.mark.parametrize(
    "amount", [eur(-1), Money("EUR", 0, -1), eur(10**12), eur(2**63 - 1), Money("eur", 1), Money("", 1)]
)
def test_negative_and_overflowing_prices_are_refused(amount: Money) -> None:
    world = make_world(DRAFT)
    world.assert_rejected(SetPrice("chair", amount, None), "FIELD_INVALID", field="price")


def test_a_price_is_in_force_from_its_time_until_the_next() -> None:
    world = make_world(DRAFT, price(9), price(12, days=2), price(10, days=1), price(11, days=1))
    schedule = world.state(product.PRODUCT.stream("chair")).prices

    def find_units(**later: int) -> int | None:
        found = prices.find_price(schedule, NOW + timedelta(**later))
        return found.units if found else None

    assert [find_units(seconds=-1), find_units(), find_units(hours=23)] == [None, 9, 9]
    assert [find_units(days=1), find_units(hours=47), find_units(days=2), find_units(days=99)] == [
        11,
        11,
        12,
        12,
    ]


def test_a_price_has_the_currency_of_the_others_and_is_not_of_the_past() -> None:
    world = make_world(DRAFT, price(9))
    world.assert_rejected(SetPrice("chair", Money("USD", 9), None), "PRICE_CURRENCY_MIXED")
    world.assert_rejected(price(8, seconds=-1), "PRICE_IN_THE_PAST")


def test_prices_of_the_future_are_limited_and_the_latest_are_kept() -> None:
    world = make_world(DRAFT)
    world.execute(*(price(n, days=n) for n in range(1, prices.MAX_SCHEDULED + 1)))
    world.assert_rejected(price(99, days=99), "PRICE_TOO_MANY_SCHEDULED")
    world.execute(price(99, days=20))
    for day in range(30, 90):
        world.now = NOW + timedelta(days=day)
        world.execute(price(day, days=day))
    kept = world.state(product.PRODUCT.stream("chair")).prices
    assert [each.amount.units for each in kept] == list(range(90 - prices.MAX_KEPT, 90))


def test_a_category_cannot_be_below_itself() -> None:
    world = make_world(
        AddCategory("a", "", "A"),
        AddCategory("b", "a", "B"),
        AddCategory("c", "b", "C"),
        AddCategory("d", "", "D"),
    )
    for parent in ("a", "b", "c"):
        world.assert_rejected(MoveCategory("a", parent), "CATEGORY_CYCLE", category_id="a", parent_id=parent)
    world.execute(MoveCategory("b", "d"), MoveCategory("a", "c"))
    tree = world.state(category_tree.STREAM)
    assert list(tree.list_path("a")) == ["a", "c", "b", "d"]


def test_categories_are_added_once_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(category_tree, "MAX_CATEGORIES", 2)
    world = make_world(AddCategory("a", "", "A"), AddCategory("b", "a", "B"))
    world.assert_rejected(AddCategory("b", "", "B"), "CATEGORY_EXISTS")
    world.assert_rejected(AddCategory("b", "a", "Other"), "CATEGORY_EXISTS")
    world.assert_rejected(AddCategory("c", "", "C"), "CATEGORY_TOO_MANY", most="2")


def test_an_event_of_a_price_has_its_time() -> None:
    products.given(DRAFTED).when(price(9)).then(PriceSet("chair", eur(9), NOW, NOW))
    later = NOW + timedelta(days=1)
    products.given(DRAFTED).when(price(9, days=1)).then(PriceSet("chair", eur(9), later, NOW))
