"""Sampling is decided once, where a trace begins, and before anything is allocated for it."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from runtime.telemetry import tracing

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Sample half of all new traces."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(tracing, "_ratio", 0.5)
    yield exporter
    provider.shutdown()


def set_random(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(tracing, "random", lambda: value)


def names(spans: InMemorySpanExporter) -> list[str]:
    return [span.name for span in spans.get_finished_spans()]


def call(parent: str | None = None) -> None:
    with tracing.span("call", parent=parent), tracing.span("inner"):
        pass


def test_a_new_trace_is_sampled_at_random_with_all_its_spans(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_random(monkeypatch, 0.6)
    call()
    assert names(spans) == []
    set_random(monkeypatch, 0.4)
    call()
    assert names(spans) == ["inner", "call"]


def test_within_an_unsampled_call_no_span_is_sampled(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_random(monkeypatch, 0.6)
    with tracing.span("call"):
        set_random(monkeypatch, 0.4)
        with tracing.span("inner"):
            assert tracing.current_traceparent() is None
    assert names(spans) == []
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(("parent", "expected"), [(SAMPLED, ["inner", "call"]), (UNSAMPLED, [])])
@pytest.mark.parametrize("value", [0.4, 0.6])
def test_a_callers_decision_is_followed(
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    parent: str,
    expected: list[str],
    value: float,
) -> None:
    set_random(monkeypatch, value)
    call(parent)
    assert names(spans) == expected


def test_a_malformed_traceparent_begins_a_trace(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_random(monkeypatch, 0.4)
    call("no traceparent")
    assert names(spans) == ["inner", "call"]
