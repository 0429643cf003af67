"""The independent fold of the catalogue: equal to the other folds, and strict about contradictions."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from diptych.catalogue.v1 import events_pb2
from google.protobuf.message import Message

from command_server.contexts.catalogue import CONTEXT
from command_server.contexts.catalogue.domain.messages import (
    AddCategory,
    AssignCategory,
    Attribute,
    ChangeDetails,
    DraftProduct,
    MoveCategory,
    ProductDetails,
    PublishProduct,
    RenameCategory,
    SetPrice,
    WithdrawProduct,
)
from command_server.kernel.money import Money
from contracts.envelope import RecordedEvent
from diptych_testing import folds
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from operations.verify.contexts.catalogue import fold_product, fold_tree
from operations.verify.model import Event

DETAILS = ProductDetails("Oak chair", "", "Plank", (Attribute("wood", "oak"),), ("https://p.example/1",))


def price(units: int, hours: int) -> SetPrice:
    return SetPrice("chair", Money("EUR", units, 5), NOW + timedelta(hours=hours) if hours else None)


def test_all_folds_of_the_catalogue_are_the_same_at_every_step() -> None:
    world = World(*CONTEXT.deciders)
    for command in (
        AddCategory("home", "", "Home"),
        AddCategory("seats", "", "Seats"),
        MoveCategory("seats", "home"),
        RenameCategory("home", "House"),
        DraftProduct("chair"),
        ChangeDetails("chair", DETAILS),
        price(9, 0),
        price(12, 2),
        price(11, 1),
        price(10, 1),
        AssignCategory("chair", "seats"),
        PublishProduct("chair"),
        WithdrawProduct("chair"),
        PublishProduct("chair"),
        AssignCategory("chair", ""),
    ):
        assert world.execute(command)
        folds.compare(world)
    world.assert_snapshots_decode()


def test_all_folds_keep_the_same_of_many_prices() -> None:
    world = World(*CONTEXT.deciders)
    world.execute(DraftProduct("chair"))
    for day in range(40):
        world.now = NOW + timedelta(days=day)
        world.execute(price(day + 1, 0))
    folds.compare(world)


def record(stream: str, *messages: Message) -> list[Event]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return [
        Event(RecordedEvent(stream, n, message.DESCRIPTOR.full_name, b"", now, n, {}), message)
        for n, message in enumerate(messages, 1)
    ]


def added(id_: str, parent_id: str = "") -> Message:
    return events_pb2.CategoryAdded(category_id=id_, parent_id=parent_id, name=id_)


def moved(id_: str, parent_id: str) -> Message:
    return events_pb2.CategoryMoved(category_id=id_, parent_id=parent_id)


@pytest.mark.parametrize(
    ("fold", "messages", "problem"),
    [
        (fold_product, (events_pb2.ProductPublished(),), "cannot be version 1"),
        (fold_product, (events_pb2.ProductDrafted(), events_pb2.ProductDrafted()), "drafted once"),
        (fold_tree, (added("a"), added("a")), "added once"),
        (fold_tree, (added("a"), moved("b", "a")), "not added"),
        (fold_tree, (added("a", "b"),), "not added"),
        (fold_tree, (added("a"), added("b", "a"), moved("a", "b")), "in a cycle: a, b"),
    ],
)
def test_events_that_contradict_each_other_cannot_be_folded(
    fold: Any, messages: tuple[Message, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        fold(record("catalogue.product.i-1", *messages))
