"""Recorded events of every version stay readable for the domain and for projections."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from command_server.kernel.context import aggregate_types
from command_server.kernel.ports import StoredEvent
from contracts.envelope import RecordedEvent
from projector.projection import Projection
from tests.support.builders import recorded_events
from tests.support.builders.recorded_events import RecordedExample
from tests.support.harness.contexts import CONTEXTS, PROJECTIONS

EXAMPLES = recorded_events.read_examples()
AGGREGATES = aggregate_types(CONTEXTS)

each_event = pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)


def test_every_version_of_every_event_has_a_recorded_example() -> None:
    names = {
        message.DESCRIPTOR.full_name
        for context in CONTEXTS
        for message in recorded_events.list_event_messages(context)
    }
    assert names == {event.type for event in EXAMPLES}, (
        "python -m tests.support.builders.recorded_events writes missing files"
    )


@each_event
def test_recorded_bytes_decode_to_the_same_message(event: RecordedExample) -> None:
    message = GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)
    assert MessageToDict(message, preserving_proto_field_name=True) == event.message


@each_event
def test_recorded_bytes_decode_to_the_same_domain_event(event: RecordedExample) -> None:
    assert recorded_events.decode_fields(AGGREGATES, StoredEvent(event.type, event.data)) == event.domain


PROJECTED = [
    (projection, event)
    for projection in PROJECTIONS
    for event in EXAMPLES
    if any(AGGREGATES[stream_type].decodes(event.type) for stream_type in projection.view.source_streams)
    if "shipping_group_id" not in event.message  # the example's order has no such group
]


@pytest.mark.parametrize(
    ("projection", "event"), PROJECTED, ids=[f"{p.view.projection}-{event.type}" for p, event in PROJECTED]
)
def test_projections_fold_recorded_bytes(projection: Projection[Any], event: RecordedExample) -> None:
    (stream_type,) = projection.view.source_streams
    of_stream = [example for example in EXAMPLES if AGGREGATES[stream_type].decodes(example.type)]
    histories = [[event], *([first, event] for first in of_stream)]
    assert any(can_fold(projection, stream_type, examples) for examples in histories)


def can_fold(projection: Projection[Any], stream_type: str, examples: list[RecordedExample]) -> bool:
    events = [as_recorded(stream_type, example, version) for version, example in enumerate(examples, 1)]
    _, applied_count, _ = projection.fold(projection.view.message(), events)
    return applied_count == len(events)


def as_recorded(stream_type: str, event: RecordedExample, version: int) -> RecordedEvent:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return RecordedEvent(f"{stream_type}.x", version, event.type, event.data, now, version, {})
