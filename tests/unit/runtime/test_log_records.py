"""The record that the exporter makes of a log line."""

import json
from typing import Any

from opentelemetry._logs import SeverityNumber

from runtime.telemetry.log_exporter import parse_line

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def line(**fields: Any) -> bytes:
    standard = {
        "timestamp": "2026-11-27T04:00:00.123456Z",
        "level": "warning",
        "logger": "relay",
        "service": "r",
    }
    return json.dumps({**standard, "message": "Relay failed", **fields}).encode() + b"\n"


def test_the_standard_fields_become_those_of_the_record() -> None:
    logger, record = parse_line(line(trace_id=TRACE, span_id=SPAN, count=3, ok=True, ratio=0.5))
    assert (logger, record.body, record.severity_number) == ("relay", "Relay failed", SeverityNumber.WARN)
    assert record.timestamp == 1_795_752_000_123_456_000
    assert (record.trace_id, record.span_id, int(record.trace_flags or 0)) == (
        int(TRACE, 16),
        int(SPAN, 16),
        1,
    )
    assert record.attributes == {"count": 3, "ok": True, "ratio": 0.5}


def test_a_trace_that_is_not_sampled_has_an_id_alone() -> None:
    _, record = parse_line(line(trace_id=TRACE))
    assert (record.trace_id, record.span_id, int(record.trace_flags or 0)) == (int(TRACE, 16), 0, 0)


def test_an_exception_has_the_attributes_of_the_conventions() -> None:
    _, record = parse_line(line(exception="Traceback ...\n  at x\nnats.errors.TimeoutError: nats: timeout\n"))
    attributes = dict(record.attributes or {})
    assert attributes["exception.type"] == "nats.errors.TimeoutError"
    assert attributes["exception.message"] == "nats: timeout"


def test_what_a_record_cannot_hold_becomes_text() -> None:
    _, record = parse_line(line(large=2**70, nested={"a": [1]}, none=None))
    assert record.attributes == {"large": str(2**70), "nested": '{"a":[1]}'}


def test_a_torn_line_becomes_a_record_with_its_text() -> None:
    for torn in (b'vel":"info"}\n', b"[]\n", b"\xff\n", line(timestamp="soon"), line(timestamp=3)):
        _, record = parse_line(torn)
        assert record.body == torn.decode("utf-8", "replace").rstrip()


def test_a_field_named_like_an_id_is_no_context() -> None:
    _, record = parse_line(line(trace_id="not one"))
    assert record.trace_id == 0
