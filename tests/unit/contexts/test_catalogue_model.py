"""The catalogue behaves like its model: a schedule of prices as a map, and a tree as a map of parents."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from command_server.contexts.catalogue import CONTEXT
from command_server.contexts.catalogue.domain.category_tree import STREAM
from command_server.contexts.catalogue.domain.messages import (
    AddCategory,
    AssignCategory,
    ChangeDetails,
    DraftProduct,
    MoveCategory,
    ProductDetails,
    PublishProduct,
    RenameCategory,
    SetPrice,
    WithdrawProduct,
)
from command_server.contexts.catalogue.domain.prices import find_price
from command_server.contexts.catalogue.domain.product import PRODUCT
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from diptych_testing import folds
from diptych_testing.world import World

SKUS = ("chair", "table")
skus, texts = st.sampled_from(SKUS), st.sampled_from(["", "Oak", " Ash "])
ids, parents = st.sampled_from("abcd"), st.sampled_from(["", *"abcd"])


class CatalogueMachine(RuleBasedStateMachine):
    """Executes random commands and keeps the expected products and categories."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*CONTEXT.deciders)
        self.products: dict[str, dict[str, Any]] = {}
        self.parents: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def execute(self, command: Any, allowed: bool) -> bool:
        """Execute a command and assert that it is rejected unless `allowed`; return `allowed`."""
        try:
            self.world.execute(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        return True

    def find_price(self, sku: str) -> int | None:
        prices = self.products[sku]["prices"]
        return prices[max(times)] if (times := [time for time in prices if time <= self.world.now]) else None

    @rule(minutes=st.integers(1, 90))
    def wait(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    @rule(sku=skus)
    def draft(self, sku: str) -> None:
        self.execute(DraftProduct(sku), allowed=True)
        self.products.setdefault(sku, {"state": "DRAFT", "title": "", "prices": {}, "category": ""})

    @rule(sku=skus, title=texts)
    def change_details(self, sku: str, title: str) -> None:
        model = self.products.get(sku)
        allowed = model is not None and (bool(title) or model["state"] != "PUBLISHED")
        if self.execute(ChangeDetails(sku, ProductDetails(title)), allowed):
            self.products[sku]["title"] = title.strip()

    @rule(sku=skus, units=st.integers(1, 3), minutes=st.none() | st.integers(-5, 60))
    def set_price(self, sku: str, units: int, minutes: int | None) -> None:
        time = self.world.now + timedelta(minutes=minutes or 0)
        model = self.products.get(sku)
        same = model is not None and model["prices"].get(time) == units
        allowed = model is not None and (same or time >= self.world.now)
        effective_from = None if minutes is None else time
        is_set = self.execute(SetPrice(sku, Money("EUR", units), effective_from), allowed)
        if is_set and (minutes is not None or self.find_price(sku) != units):
            self.products[sku]["prices"][time] = units

    @rule(sku=skus)
    def publish(self, sku: str) -> None:
        model = self.products.get(sku, {"state": ""})
        complete = model["state"] and model["title"] and self.find_price(sku) is not None
        if self.execute(PublishProduct(sku), bool(model["state"] == "PUBLISHED" or complete)):
            model["state"] = "PUBLISHED"

    @rule(sku=skus)
    def withdraw(self, sku: str) -> None:
        model = self.products.get(sku, {"state": ""})
        if self.execute(WithdrawProduct(sku), model["state"] in ("PUBLISHED", "WITHDRAWN")):
            model["state"] = "WITHDRAWN"

    @rule(sku=skus, category=parents)
    def assign(self, sku: str, category: str) -> None:
        if self.execute(
            AssignCategory(sku, category), sku in self.products and category in ("", *self.parents)
        ):
            self.products[sku]["category"] = category

    @rule(id_=ids, parent=parents)
    def add_category(self, id_: str, parent: str) -> None:
        same = id_ in self.parents and (self.parents[id_], self.names[id_]) == (parent, f"Old {id_}")
        new = id_ not in self.parents and parent in ("", *self.parents)
        if self.execute(AddCategory(id_, parent, f"Old {id_}"), same or new) and new:
            self.parents[id_], self.names[id_] = parent, f"Old {id_}"

    @rule(id_=ids)
    def rename_category(self, id_: str) -> None:
        if self.execute(RenameCategory(id_, f"New {id_}"), id_ in self.parents):
            self.names[id_] = f"New {id_}"

    @rule(id_=ids, parent=parents)
    def move_category(self, id_: str, parent: str) -> None:
        below = {id_}
        for _ in self.parents:
            below |= {child for child, above in self.parents.items() if above in below}
        known = id_ in self.parents and parent in ("", *self.parents)
        same = id_ in self.parents and self.parents[id_] == parent
        if self.execute(MoveCategory(id_, parent), same or (known and parent not in below)):
            self.parents[id_] = parent

    @invariant()
    def states_are_as_expected(self) -> None:
        for sku, model in self.products.items():
            state = self.world.state(PRODUCT.stream(sku))
            price = find_price(state.prices, self.world.now)
            assert (state.status.name, state.details.title) == (model["state"], model["title"])
            assert (price.units if price else None, state.category_id) == (
                self.find_price(sku),
                model["category"],
            )
        categories = self.world.state(STREAM).categories
        assert {each.category_id: each.parent_id for each in categories} == self.parents
        assert {each.category_id: each.name for each in categories} == self.names

    def teardown(self) -> None:
        self.world.assert_snapshots_decode()
        folds.compare(self.world)


CatalogueMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=40)
TestCatalogueModel = CatalogueMachine.TestCase


@pytest.mark.long
def test_the_catalogue_follows_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(CatalogueMachine, settings=settings(max_examples=300, stateful_step_count=40))
