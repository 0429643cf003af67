"""What is personal in an event stays masked in the views and states that are folded from it."""

from typing import Any

import pytest
from diptych.ordering.v1.events_pb2 import OrderCancelled
from diptych.ordering.v1.types_pb2 import OrderHistoryEntry
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from command_server.kernel.context import AggregateType, Context, aggregate_types
from command_server.kernel.ports import StoredEvent
from contracts.personal_fields import MASK, list_personal_names, mask_personal, mask_state
from operations_server.records.state_folder import find_personal_names
from operations_server.records.state_json import parse_state
from projector.projection import Projection
from tests.support.builders.personal_events import NAME, has_personal_fields, make_event
from tests.support.harness.contexts import CONTEXTS, PROJECTIONS

OF_VIEWS = [
    pytest.param(projection, event, id=f"{projection.view.projection} {event.DESCRIPTOR.name}")
    for projection in PROJECTIONS
    for event in projection.handlers
    if has_personal_fields(event)
]
OF_STATES = [
    pytest.param(context, aggregate, id=aggregate.stream_type)
    for context in CONTEXTS
    for aggregate in aggregate_types([context]).values()
]
PLACED = "OrderPlaced"
"""An event that others need before them."""


def show(message: Message) -> str:
    fields = MessageToDict(message, preserving_proto_field_name=True)
    mask_personal(message, fields)
    return str(fields)


@pytest.mark.parametrize(("projection", "event"), OF_VIEWS)
def test_a_view_shows_nothing_personal(projection: Projection[Any], event: type[Message]) -> None:
    placed = [kind for kind in projection.handlers if kind.DESCRIPTOR.name == PLACED]
    for kinds in ([event], [*placed, event]):
        events = [make_event(kind, version) for version, kind in enumerate(kinds, 1)]
        rendered, _, error = projection.fold(projection.view.message(), events)
        if error is None and rendered is not None:
            assert NAME not in show(rendered.message)
            return
    pytest.fail(f"no view of {event.DESCRIPTOR.name}: {error}")


@pytest.mark.parametrize(("context", "aggregate"), OF_STATES)
def test_a_state_shows_nothing_personal(context: Context, aggregate: AggregateType) -> None:
    names = find_personal_names(context, {})[aggregate.stream_type]
    events = {context.events.newest(name) for name in context.events.names if aggregate.decodes(name)}
    state = aggregate.initial
    for event in sorted(events, key=lambda each: (each.DESCRIPTOR.name != PLACED, each.DESCRIPTOR.name)):
        if has_personal_fields(event):
            stored = make_event(event)
            state = aggregate.evolve(state, aggregate.decode(StoredEvent(stored.type, stored.data)))
            assert NAME not in str(mask_state(parse_state(aggregate.snapshots.encode(state)), names))


def test_the_event_of_a_history_entry_is_masked() -> None:
    entry = OrderHistoryEntry(actor="alice")
    entry.event.Pack(OrderCancelled(order_id="o-1", reason=NAME))
    shown = show(entry)
    assert (NAME in shown, MASK in shown, "o-1" in shown, "alice" in shown) == (False, True, True, True)


def test_of_a_state_ids_codes_numbers_and_times_are_shown() -> None:
    state = {
        "status": "PLACED",
        "owner_id": "ada",
        "amount": 7,
        "since": "2026-01-01T00:00:00Z",
        "note": "to Ada",
        "empty": "",
        "cancel_reason": "LATE",
        "postal_code": "10115",
        "order_ids": ["o-1"],
        "lines": [{"sku": "a tee", "title": "A tee"}],
        "by_name": {"Ada Lovelace": 1, "o-1": 2},
    }
    names = list_personal_names([OrderCancelled.DESCRIPTOR]) | {"postal_code"}
    assert mask_state(state, names) == {
        "status": "PLACED",
        "owner_id": "ada",
        "amount": 7,
        "since": "2026-01-01T00:00:00Z",
        "note": MASK,
        "empty": "",
        "cancel_reason": MASK,
        "postal_code": MASK,
        "order_ids": ["o-1"],
        "lines": [{"sku": "a tee", "title": MASK}],
        "by_name": {f"{MASK} 1": 1, "o-1": 2},
    }
