"""Messages as JSON: all fields under the names of the protos, numbers as numbers."""

import json
from datetime import UTC, datetime

from diptych.operations.v1 import explanation_pb2, records_pb2, status_pb2
from diptych.operations.v1.operations_service_pb2 import GetStateResponse
from google.protobuf.duration_pb2 import Duration

from operations.rendering.json_lines import format_message, format_object


def test_a_status_has_all_fields_and_its_numbers_are_numbers() -> None:
    status = status_pb2.Status(
        outbox=status_pb2.Outbox(pending_events=2**40, oldest_age=Duration(seconds=90))
    )
    status.outbox.oldest_age.nanos = 500_000_000
    status.read_time.FromDatetime(datetime(2026, 1, 31, 12, tzinfo=UTC))
    status.figures.add(name="failed events", threshold=0.0)
    line = format_message(status)
    assert "\n" not in line
    value = json.loads(line)
    assert set(value) == {field.name for field in status_pb2.Status.DESCRIPTOR.fields}
    assert (value["healthy"], value["findings"]) == (False, [])
    assert value["outbox"] == {"error": "", "pending_events": 2**40, "oldest_age": 90.5, "leader": ""}
    assert value["read_time"] == "2026-01-31T12:00:00Z"
    assert value["figures"][0]["value"] is None


def test_a_number_that_json_cannot_write_is_a_text() -> None:
    figure = status_pb2.HealthFigure(value=float("nan"), threshold=float("inf"))
    value = json.loads(format_message(figure), parse_constant=lambda name: 1 / 0)
    assert (value["value"], value["threshold"]) == ("nan", "inf")


def test_fields_of_events_and_views_are_objects() -> None:
    event = records_pb2.Event(id="ordering.order.o-1@1")
    event.data.update({"lines": [{"quantity": 2, "title": "Tee \x1b[2J ü", "share": 0.5, "gift": None}]})
    line = format_message(event)
    assert line.isprintable()
    assert json.loads(line)["data"] == {
        "lines": [{"quantity": 2, "title": "Tee \x1b[2J ü", "share": 0.5, "gift": None}]
    }
    assert '"quantity": 2,' in line
    state = GetStateResponse()
    state.views["ordering.order"].update({"state": "STATE_PLACED"})
    assert json.loads(format_message(state))["views"] == {"ordering.order": {"state": "STATE_PLACED"}}


def test_an_enum_is_its_name() -> None:
    entry = explanation_pb2.Explanation.Entry(kind=explanation_pb2.Explanation.KIND_EVENT)
    assert json.loads(format_message(entry))["kind"] == "KIND_EVENT"


def test_a_lone_surrogate_is_escaped() -> None:
    assert json.loads(format_object({"a": "\ud800"})) == {"a": "\ud800"}
    assert format_object({"a": "\ud800"}).isascii()
