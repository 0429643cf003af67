"""Spans that are kept in this process, with every new trace sampled."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from runtime.telemetry import tracing


class RecordedSpans(InMemorySpanExporter):
    """The spans that have ended."""

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.get_finished_spans()]

    def find(self, name: str) -> Sequence[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]


@pytest.fixture
def spans() -> Iterator[RecordedSpans]:
    exporter = RecordedSpans()
    provider = TracerProvider(ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.configure(provider.get_tracer("test"), 1.0)
    yield exporter
    tracing.configure(None, None)
    provider.shutdown()


def id_of(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"
