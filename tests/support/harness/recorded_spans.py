"""Spans that are kept in this process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from runtime.telemetry import tracing


class RecordedSpans(InMemorySpanExporter):
    """The spans that have ended."""

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.get_finished_spans()]

    def find(self, name: str) -> Sequence[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]


@contextmanager
def record_spans(sampled_share: float) -> Iterator[RecordedSpans]:
    """Record the spans of traces that callers sample, and of this share of new ones."""
    exporter = RecordedSpans()
    provider = TracerProvider(ParentBased(ALWAYS_ON if sampled_share else ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.configure(provider.get_tracer("test"), sampled_share)
    yield exporter
    tracing.configure(None, None)
    provider.shutdown()


@pytest.fixture
def spans() -> Iterator[RecordedSpans]:
    """Sample every new trace."""
    with record_spans(1.0) as recorded:
        yield recorded


def id_of(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"
