"""The export with the OpenTelemetry SDK; imported only if something is exported."""

from collections.abc import Callable
from typing import TextIO, cast

from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Tracer

from runtime.process.logs.output import ConsoleStream
from runtime.telemetry import metric_export
from runtime.telemetry.otlp import create_exporter
from runtime.telemetry.telemetry_settings import TelemetrySettings


def create_tracer(
    resource: Resource, settings: TelemetrySettings
) -> tuple[Tracer, float | None, Callable[[], None]]:
    """Return a tracer, the sampling ratio of new traces, and a function that shuts the tracer down.

    `tracing.span` applies the ratio before it creates a span; the tracer then samples every span. The ratio
    is None for a sampler that ignores the caller's decision; then the tracer itself samples.
    """
    sampler: Sampler = ParentBased(ALWAYS_ON) if settings.parent_based else TraceIdRatioBased(settings.ratio)
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
    batches = settings.span_batches
    for name in settings.exporters["traces"]:
        exporter = _create_span_exporter(name, settings)
        provider.add_span_processor(
            BatchSpanProcessor(exporter, batches.queue, batches.delay, batches.batch, batches.timeout)
        )
    return (
        provider.get_tracer("diptych"),
        settings.ratio if settings.parent_based else None,
        provider.shutdown,
    )


def _create_span_exporter(name: str, settings: TelemetrySettings) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter(
            out=cast(TextIO, ConsoleStream()), formatter=lambda span: span.to_json(indent=None) + "\n"
        )
    return cast(SpanExporter, create_exporter(settings.otlp["traces"]))


def start_metric_exports(resource: Resource, settings: TelemetrySettings) -> list[Callable[[], None]]:
    """Export metrics periodically; return functions that export a last time and stop."""
    exporters: list[tuple[MetricExporter, bool]] = []
    if "otlp" in settings.exporters["metrics"]:
        exporters.append((create_exporter(settings.otlp["metrics"]), settings.delta))
    if "console" in settings.exporters["metrics"]:
        console = ConsoleMetricExporter(
            out=cast(TextIO, ConsoleStream()), formatter=lambda data: data.to_json(indent=None) + "\n"
        )
        exporters.append((console, False))
    return [
        metric_export.start_metric_export(resource, exporter, settings.metric_interval, delta)
        for exporter, delta in exporters
    ]
