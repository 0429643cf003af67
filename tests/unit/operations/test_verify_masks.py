"""Findings of verify are logged, so they show no personal field."""

import json

from diptych.ordering.v1.types_pb2 import Order
from diptych.ordering.v2.events_pb2 import OrderPlaced

from contracts.personal_fields import MASK
from operations.verify.checks.stored_streams import check_snapshot
from operations.verify.checks.views import list_differences
from operations.verify.contexts.ordering import ORDER
from operations.verify.model import Event
from operations.verify.sources import StreamRow
from tests.support.builders.personal_events import NAME, make_event


def test_a_view_that_differs_in_personal_fields() -> None:
    actual, expected = Order(cancel_reason=NAME, carrier="x"), Order(cancel_reason="late", carrier="y")
    actual.shipping_groups.add().shipping_address.recipient = NAME
    assert set(list_differences(actual, expected)) == {
        "carrier is x, expected y",
        f"cancel_reason is {MASK}, expected {MASK}",
        f"shipping_groups is [{{'shipping_address': '{MASK}'}}], expected nothing",
    }


def test_a_snapshot_that_differs_in_personal_fields() -> None:
    recorded = make_event(OrderPlaced)
    events = [Event(recorded, OrderPlaced.FromString(recorded.data))]
    state = json.dumps(ORDER.snapshot(events))
    assert NAME in state
    row = StreamRow("ordering.order", 1, state.replace(NAME, "Eve"), 1, "")
    (problem,) = check_snapshot(ORDER, "o-1", row, events)
    assert problem.text.startswith("contents is ")
    assert (NAME in problem.text, "Eve" in problem.text, MASK in problem.text) == (False, False, True)
