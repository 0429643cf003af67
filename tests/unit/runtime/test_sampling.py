"""Sampling is decided once, where a trace begins, and before anything is allocated for it."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from runtime.telemetry import trace_context, tracing
from runtime.telemetry.finished_spans import create_recorder
from tests.support.harness.recorded_spans import RecordedSpans, record_spans

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


@pytest.fixture
def spans() -> Iterator[RecordedSpans]:
    """Sample half of all new traces."""
    with record_spans(0.5) as recorded:
        yield recorded


def set_random(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(tracing, "random", lambda: value)


def names(spans: RecordedSpans) -> list[str]:
    return [span.name for span in spans.get_finished_spans()]


def call(parent: str | None = None) -> str | None:
    """Run a call with a span in it, as the edge does; return the traceparent within it."""
    if (unsampled := tracing.begin(parent)) is not None:
        token = trace_context.set_current(unsampled)
        with tracing.span("inner"):
            trace_context.reset(token)
        return unsampled
    with tracing.begin_span("call", kind=SpanKind.SERVER, parent=parent, attributes={}):
        with tracing.span("inner"):
            pass
        return trace_context.get_current()


def test_a_new_trace_is_sampled_at_random_with_all_its_spans(
    spans: RecordedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_random(monkeypatch, 0.6)
    assert not trace_context.is_sampled(call())
    assert names(spans) == []
    set_random(monkeypatch, 0.4)
    assert trace_context.is_sampled(call())
    assert names(spans) == ["inner", "call"]


def test_each_unsampled_trace_has_valid_ids_of_its_own(
    spans: RecordedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_random(monkeypatch, 0.6)
    first, second = call(), call()
    assert first != second
    for each in (first, second, trace_context.derive_unsampled("ordering.order/o-1")):
        assert each is not None
        assert trace_context.parse(each) == each
        assert each.endswith("-00")


def test_outside_of_a_trace_there_is_no_span(spans: RecordedSpans) -> None:
    with tracing.span("lone"):
        pass
    for malformed in ("00-1-1-01", "", "01"):
        with tracing.span("lone", parent=malformed):
            pass
        tracing.record_span("lone", parent=malformed, start_ns=1, end_ns=2)
    tracing.record_span("lone", parent=None, start_ns=1, end_ns=2)
    assert names(spans) == []


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (SAMPLED, ["inner", "call"]),
        (SAMPLED[:-1] + "3", ["inner", "call"]),
        (UNSAMPLED, []),
        (UNSAMPLED[:-1] + "2", []),
    ],
)
@pytest.mark.parametrize("value", [0.4, 0.6])
def test_a_callers_decision_is_followed(
    spans: RecordedSpans,
    monkeypatch: pytest.MonkeyPatch,
    parent: str,
    expected: list[str],
    value: float,
) -> None:
    set_random(monkeypatch, value)
    within = call(parent)
    assert names(spans) == expected
    assert within is not None
    assert (within == parent) is (not expected), "an unsampled trace is carried as it is"
    assert within[:35] == parent[:35]
    tracing.record_span("later", parent=within, start_ns=1, end_ns=2)
    assert names(spans) == [*expected, "later"][: 3 if expected else 0]


def test_a_span_can_be_found_until_it_ends(spans: RecordedSpans) -> None:
    with tracing.begin_span("call", kind=SpanKind.SERVER, parent=SAMPLED, attributes={}) as span:
        traceparent = trace_context.get_current()
        assert tracing.find_open_span(traceparent) is span
    assert tracing.find_open_span(traceparent) is None
    assert trace_context.get_current() is None
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_long_call_has_no_spans_of_all_that_it_does(spans: RecordedSpans) -> None:
    with tracing.begin_span("watch", kind=SpanKind.SERVER, parent=SAMPLED, attributes={}, is_long=True):
        assert trace_context.is_sampled(trace_context.get_current())
        assert tracing.find_open_span(trace_context.get_current()) is None


@pytest.mark.parametrize("ratio", [0.5, None])
def test_a_finished_span_is_complete_whoever_samples(spans: RecordedSpans, ratio: float | None) -> None:
    tracing.configure(tracing._tracer, ratio)
    parent = tracing.record_span("outer", parent=SAMPLED, start_ns=1, end_ns=9, attributes={"a": 1})
    tracing.record_span(
        "inner", parent=parent, start_ns=2, end_ns=8, kind=SpanKind.CLIENT, links=[SAMPLED, None], error="Bug"
    )
    outer, inner = spans.get_finished_spans()
    assert outer.parent is not None
    assert f"{outer.parent.span_id:016x}" == SAMPLED[36:52]
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert {span.context.trace_id for span in (outer, inner)} == {int(SAMPLED[3:35], 16)}
    assert (outer.start_time, outer.end_time, dict(outer.attributes or {})) == (1, 9, {"a": 1})
    assert (inner.kind, dict(inner.attributes or {})) == (SpanKind.CLIENT, {"error.type": "Bug"})
    assert [f"{link.context.span_id:016x}" for link in inner.links] == [SAMPLED[36:52]]
    assert (outer.status.is_unset, inner.status.is_ok, inner.status.is_unset) == (True, False, False)
    assert inner.to_json()


@pytest.mark.parametrize(
    ("variable", "is_applied"),
    [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", True),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", True),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", False),
    ],
)
def test_limits_of_spans_hold_for_finished_ones(
    monkeypatch: pytest.MonkeyPatch, variable: str, is_applied: bool
) -> None:
    monkeypatch.setenv(variable, "2")
    tracer: Any = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    recorder = create_recorder(tracer)
    assert (recorder is None) is is_applied
    assert recorder is None or recorder._max_links == 2
