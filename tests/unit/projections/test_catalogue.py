"""The indexes of products, and events of the catalogue that cannot be applied."""

from datetime import UTC, datetime
from typing import Any

from diptych.catalogue.v1 import events_pb2 as events
from diptych.catalogue.v1.types_pb2 import CategoryTree, Product
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.envelope import RecordedEvent
from contracts.view_layout import index_member
from projector.projections.catalogue import product
from projector.projections.catalogue.category_tree import CATEGORY_TREES

AT, LATER, LAST = (Timestamp(seconds=1_767_322_800 + n) for n in (0, 60, 120))
DRAFTED = events.ProductDrafted(sku="chair", drafted_at=AT)
ASSIGNED = events.CategoryAssigned(sku="chair", category_id="seats", assigned_at=AT)
PUBLISHED = events.ProductPublished(sku="chair", published_at=LATER)
WITHDRAWN = events.ProductWithdrawn(sku="chair", withdrawn_at=LATER)
PUBLISHED_AGAIN = events.ProductPublished(sku="chair", published_at=LAST)


def record(*messages: Message) -> list[RecordedEvent]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return [
        RecordedEvent(
            "catalogue.product.chair",
            n,
            message.DESCRIPTOR.full_name,
            message.SerializeToString(),
            now,
            n,
            {},
        )
        for n, message in enumerate(messages, 1)
    ]


def fold(*messages: Message) -> Any:
    rendered, _, error = product.PRODUCTS.fold(Product(), record(*messages))
    assert rendered is not None
    assert error is None
    return rendered.message


def list_by_category(view: Product) -> list[str]:
    return [member for key, member in product.index_entries(view) if "category" in key]


def test_a_product_is_in_the_list_of_its_category_while_it_is_published() -> None:
    listed = [index_member(LATER.ToMicroseconds(), "chair")]
    history = (DRAFTED, ASSIGNED, PUBLISHED, WITHDRAWN, PUBLISHED_AGAIN)
    lists = [list_by_category(fold(*history[:count])) for count in range(1, 6)]
    assert lists == [[], [], listed, [], listed], "and has its first place when it is published again"
    assert list_by_category(fold(DRAFTED, PUBLISHED)) == []


def test_an_event_of_an_unknown_category_cannot_be_applied() -> None:
    moved = events.CategoryMoved(category_id="seats", parent_id="")
    _, folded_count, error = CATEGORY_TREES.fold(CategoryTree(), record(moved))
    assert folded_count == 0
    assert isinstance(error, LookupError)
