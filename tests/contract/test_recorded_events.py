"""What was recorded once is understood for ever: the bytes of every version of every event."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from command_server.__main__ import CONTEXTS
from command_server.kernel.context import aggregate_types
from command_server.kernel.ports import StoredEvent
from contracts.envelope import RecordedEvent
from projector.__main__ import PROJECTIONS
from projector.projection import Projection
from tests.support.builders import recorded_events
from tests.support.builders.recorded_events import Recorded

RECORDED = recorded_events.read()
AGGREGATES = aggregate_types(CONTEXTS)

each = pytest.mark.parametrize("event", RECORDED, ids=lambda event: event.type)


def test_every_version_of_every_event_is_on_record() -> None:
    known = {
        kind.DESCRIPTOR.full_name for context in CONTEXTS for kind in recorded_events.event_messages(context)
    }
    assert known == {event.type for event in RECORDED}, (
        "python -m tests.support.builders.recorded_events writes what is missing"
    )


@each
def test_recorded_bytes_say_what_they_said(event: Recorded) -> None:
    message = GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)
    assert MessageToDict(message, preserving_proto_field_name=True) == event.message


@each
def test_the_domain_understands_recorded_bytes(event: Recorded) -> None:
    assert recorded_events.as_domain(AGGREGATES, StoredEvent(event.type, event.data)) == event.domain


FIRST = {
    "ordering.order": "diptych.ordering.v2.OrderPlaced",
    "inventory.product": "diptych.inventory.v1.ProductRegistered",
    "inventory.stock": "diptych.inventory.v1.StockOpened",
    "inventory.reservation": "diptych.inventory.v1.ReservationMade",
    "banking.account": "diptych.banking.v1.AccountOpened",
    "banking.hold": "diptych.banking.v1.HoldPlaced",
    "banking.transfer": "diptych.banking.v1.TransferRequested",
}
"""What the other recorded events of a stream come after."""
BEGINNINGS = {*FIRST.values(), "diptych.ordering.v1.OrderPlaced", "diptych.banking.v1.TransferMade"}
HEARD = [
    (projection, event)
    for projection in PROJECTIONS
    for event in RECORDED
    if any(AGGREGATES[heard].knows(event.type) for heard in projection.view.source_streams)
    if "shipping_group_id" not in event.message  # it names a group that the recorded order does not have
]


@pytest.mark.parametrize(
    ("projection", "event"), HEARD, ids=[f"{p.view.projection}-{event.type}" for p, event in HEARD]
)
def test_projections_understand_recorded_bytes(projection: Projection[Any], event: Recorded) -> None:
    (heard,) = projection.view.source_streams
    begins = event.type in BEGINNINGS
    past = [event] if begins else [next(one for one in RECORDED if one.type == FIRST[heard]), event]
    events = [as_recorded(heard, one, version) for version, one in enumerate(past, 1)]
    rendered, done, error = projection.fold(projection.view.message(), events)
    assert (done, error) == (len(past), None)
    assert rendered is not None


def as_recorded(stream_type: str, event: Recorded, version: int) -> RecordedEvent:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return RecordedEvent(f"{stream_type}.x", version, event.type, event.data, now, version, {})
