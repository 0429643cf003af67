"""The independent fold of orders: complete, and strict about events that contradict each other."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import pytest
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1.types_pb2 import Order, OrderLine
from diptych.ordering.v2 import events_pb2 as v2
from msgspec import structs

from command_server.contexts.ordering import CONTEXT
from command_server.contexts.ordering.domain.order import ORDER
from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes
from contracts.events.ordering import EVENTS
from contracts.upcasters import Upcaster
from diptych_testing import folds
from diptych_testing.world import World
from operations.verify.checks.stored_streams import parse_events
from operations.verify.contexts import ordering
from operations.verify.model import Event
from operations.verify.sources import StoredStream
from operations.verify.sources.stream_contents import digest
from tests.support.builders import orders
from tests.support.builders.recorded_events import fill_fields
from tests.support.harness.contexts import PROJECTIONS

PLACED = v2.OrderPlaced(
    order_id="o-1",
    customer_id="ada",
    groups=[
        v2.PlacedGroup(shipping_group_id="home", lines=[OrderLine(sku="a"), OrderLine(sku="b")]),
        v2.PlacedGroup(shipping_group_id="work", lines=[OrderLine(sku="c")]),
    ],
)


def record(*messages: Any) -> list[Event]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return [
        Event(
            RecordedEvent("ordering.order.o-1", number, message.DESCRIPTOR.full_name, b"", now, number, {}),
            message,
        )
        for number, message in enumerate(messages, 1)
    ]


def test_every_event_of_the_protos_has_a_step() -> None:
    newest = {EVENTS.newest(name) for name in EVENTS.names}
    of_orders = {event for event in newest if "order_id" in event.DESCRIPTOR.fields_by_name}
    assert set(ordering.STEPS) == of_orders - {v1.OrderAssessed}  # of the customer's activity


@pytest.mark.parametrize("history", orders.HISTORIES.values(), ids=lambda history: f"{len(history)} events")
def test_all_folds_of_an_order_are_the_same(history: Sequence[Any]) -> None:
    world = World(*CONTEXT.deciders)
    world.history = [("ordering.order.o-1", event) for event in history]
    world.states["ordering.order.o-1"] = reduce(ORDER.evolve, history, ORDER.initial)
    folds.compare(world)


def test_every_field_of_the_events_is_folded_as_in_the_projection() -> None:
    """Events whose fields all have values, unlike those that the rules make in other tests."""
    edits = (v1.OrderLineAdded, v1.OrderLineRemoved, v1.ShippingAddressChanged)
    events = record(*(fill_fields(event()) for event in ordering.STEPS if event not in edits))
    recorded = [structs.replace(event.recorded, data=event.message.SerializeToString()) for event in events]
    for spec in ordering.ORDER.projections:
        (projection,) = (each for each in PROJECTIONS if each.view == spec.view)
        rendered, count, error = projection.fold(spec.view.message(), recorded)
        assert (count, error) == (len(recorded), None)
        assert rendered is not None
        assert rendered.message == spec.fold(events)


def test_a_line_is_added_at_the_end_of_its_group() -> None:
    added = v1.OrderLineAdded(shipping_group_id="home", line=OrderLine(sku="d"))
    order = ordering.fold_view(record(PLACED, added))
    assert [[line.sku for line in group.lines] for group in order.shipping_groups] == [["a", "b", "d"], ["c"]]
    assert (order.version, order.state) == (2, Order.STATE_PLACED)


def test_a_line_is_removed_from_its_group_alone() -> None:
    removed = v1.OrderLineRemoved(shipping_group_id="home", sku="a")
    order = ordering.fold_view(record(PLACED, removed))
    assert [[line.sku for line in group.lines] for group in order.shipping_groups] == [["b"], ["c"]]


def test_an_approved_order_is_placed_and_keeps_its_hold_reason() -> None:
    order = ordering.fold_view(record(PLACED, v1.OrderHeld(reason="looks odd"), v1.OrderApproved()))
    assert (order.state, order.hold_reason) == (Order.STATE_PLACED, "looks odd")


def test_a_confirmed_order_that_is_approved_stays_confirmed() -> None:
    order = ordering.fold_view(record(PLACED, v1.OrderConfirmed(), v1.OrderApproved()))
    assert order.state == Order.STATE_CONFIRMED


def test_an_order_of_version_1_is_read_as_the_newest_and_has_one_group() -> None:
    placed = v1.OrderPlaced(order_id="o-1", lines=[OrderLine(sku="a")], warehouse_id="w-1")
    (event,) = record(placed)
    recorded = structs.replace(event.recorded, data=placed.SerializeToString())
    events, problems = parse_events(StoredStream(recorded.stream, events=[recorded]), ordering.ORDER.events)
    assert problems == []
    (group,) = ordering.fold_view(events).shipping_groups
    assert (group.shipping_group_id, group.warehouse_id, group.lines[0].sku) == ("main", "w-1", "a")


def test_an_event_that_its_upcaster_cannot_convert_is_a_finding() -> None:
    def fail(_: v1.OrderPlaced) -> v1.OrderHeld:
        raise LookupError("no warehouse")

    types = EventTypes((v1,), (Upcaster(v1.OrderPlaced, v1.OrderHeld, fail),))
    (event,) = record(v1.OrderPlaced())
    _, (problem,) = parse_events(StoredStream(event.recorded.stream, events=[event.recorded]), types)
    assert problem.text == "cannot be upcast from diptych.ordering.v1.OrderPlaced: LookupError: no warehouse"


@pytest.mark.parametrize(
    "messages",
    [
        (v1.OrderConfirmed(),),
        (PLACED, PLACED),
        (PLACED, v1.OrderLineRemoved(shipping_group_id="nowhere", sku="a")),
    ],
    ids=["not placed", "placed twice", "no such group"],
)
def test_events_that_contradict_each_other_cannot_be_folded(messages: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"cannot be version|no shipping group"):
        ordering.fold_view(record(*messages))


def test_headers_as_nats_changes_them_are_no_difference() -> None:
    sent = {"diptych-actor": " Ada\nLovelace ", "ce-id": "a.b.c@1"}
    received = {"diptych-actor": "Ada Lovelace", "ce-id": "a.b.c@1", "Nats-Batch-Id": "x"}
    assert digest("s", sent, b"") == digest("s", received, b"")
    assert digest("s", sent, b"") != digest("s", {**received, "ce-id": "a.b.c@2"}, b"")
