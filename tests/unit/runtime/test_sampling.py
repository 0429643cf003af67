"""Whether a trace is sampled is decided where it begins, once, and before anything is made for it."""

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
    """Sample a half of all new traces."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(tracing, "_share", 0.5)
    yield exporter
    provider.shutdown()


def chance(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(tracing, "random", lambda: value)


def names(spans: InMemorySpanExporter) -> list[str]:
    return [span.name for span in spans.get_finished_spans()]


def call(parent: str | None = None) -> None:
    with tracing.span("call", parent=parent), tracing.span("inner"):
        pass


def test_chance_decides_on_a_new_trace_and_all_that_is_within(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance(monkeypatch, 0.6)
    call()
    assert names(spans) == []
    chance(monkeypatch, 0.4)
    call()
    assert names(spans) == ["inner", "call"]


def test_within_a_call_that_is_not_sampled_chance_is_not_asked_again(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance(monkeypatch, 0.6)
    with tracing.span("call"):
        chance(monkeypatch, 0.4)
        with tracing.span("inner"):
            assert tracing.current_traceparent() is None
    assert names(spans) == []
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(("parent", "found"), [(SAMPLED, ["inner", "call"]), (UNSAMPLED, [])])
@pytest.mark.parametrize("value", [0.4, 0.6])
def test_a_callers_decision_is_followed(
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    parent: str,
    found: list[str],
    value: float,
) -> None:
    chance(monkeypatch, value)
    call(parent)
    assert names(spans) == found


def test_a_parent_that_is_none_begins_a_trace(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance(monkeypatch, 0.4)
    call("no traceparent")
    assert names(spans) == ["inner", "call"]
