"""Recorded events of every version stay readable for the domain and for projections."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
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
from tests.support.builders.recorded_events import RecordedDataChanged, RecordedExample
from tests.support.harness.contexts import CONTEXTS, PROJECTIONS

EXAMPLES = recorded_events.read_examples()
AGGREGATES = aggregate_types(CONTEXTS)

each_event = pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)


def test_every_version_of_every_event_has_a_recorded_example() -> None:
    names = {name for context in CONTEXTS for name in recorded_events.list_event_names(context)}
    assert names == {event.type for event in EXAMPLES}, "make recorded-events writes missing files"


@each_event
def test_recorded_bytes_decode_to_the_same_message(event: RecordedExample) -> None:
    message = GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)
    assert MessageToDict(message, preserving_proto_field_name=True) == event.message


@each_event
def test_recorded_bytes_decode_to_the_same_domain_event(event: RecordedExample) -> None:
    decoded = recorded_events.decode_fields(AGGREGATES, StoredEvent(event.type, event.data))
    if not recorded_events.matches(event.domain, decoded):
        assert decoded == event.domain, "make recorded-events, if the domain class was meant to change"


def test_only_the_domain_event_of_a_recorded_example_can_be_rewritten(tmp_path: Path) -> None:
    recorded_events.write_example(tmp_path, example := EXAMPLES[0])
    renamed = replace(example, domain={"renamed": 1})
    recorded_events.write_example(tmp_path, renamed)
    for changed in (replace(example, data=b"other"), replace(example, message={})):
        with pytest.raises(RecordedDataChanged, match="recorded bytes never change"):
            recorded_events.write_example(tmp_path, changed)
    assert recorded_events.read_examples(tmp_path) == [renamed]


@pytest.mark.parametrize(
    ("decoded", "expected"),
    [
        ({"id": "1", "lines": [{"sku": "a", "note": ""}], "gift": {"note": "", "price": 0}}, True),
        ({"id": "2", "lines": [{"sku": "a"}]}, False),
        ({"id": "1", "lines": []}, False),
        ({"id": "1", "lines": [{"sku": "a"}], "gift": {"note": "x"}}, False),
        ({"id": "1"}, False),
    ],
    ids=["new fields with defaults", "another value", "a shorter list", "no default", "a field is missing"],
)
def test_new_fields_of_a_domain_event_need_no_recording(decoded: dict[str, Any], expected: bool) -> None:
    assert recorded_events.matches({"id": "1", "lines": [{"sku": "a"}]}, decoded) is expected


PROJECTED = [
    (projection, event)
    for projection in PROJECTIONS
    for event in EXAMPLES
    if any(AGGREGATES[stream_type].decodes(event.type) for stream_type in projection.view.source_streams)
    if "shipping_group_id" not in event.message  # the example's order has no such group
    if not event.type.startswith("diptych.ticketing.v1.Seats")  # nor the example's show such seats
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
