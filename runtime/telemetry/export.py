"""The OpenTelemetry SDK with export over OTLP/gRPC; imported only if traces or metrics are on."""

import os
from collections.abc import Callable
from threading import Event, Thread
from time import time_ns

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Tracer

from runtime.process import logs
from runtime.process.start_error import InvalidSetting
from runtime.process.version import VERSION
from runtime.telemetry import instruments
from runtime.telemetry.instruments import Counter

log = logs.get_logger(__name__)

_SCOPE = InstrumentationScope("diptych")


def create_resource(service: str) -> Resource:
    """Return the process's attributes, from its name, its version and the environment.

    OTEL_SERVICE_NAME overrides the name; OTEL_RESOURCE_ATTRIBUTES overrides the version and adds others.
    """
    named = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service})
    return Resource({SERVICE_VERSION: VERSION}).merge(named)


def create_tracer(resource: Resource) -> tuple[Tracer, float | None, Callable[[], None]]:
    """Return a tracer, the sampling ratio of new traces, and a function that shuts the tracer down.

    The ratio is that of the sampler in the environment (OTEL_TRACES_SAMPLER). `tracing.span` applies it
    before it creates a span; the tracer then samples every span. The ratio is None for a sampler that depends
    on more than a ratio; then the tracer itself samples.
    """
    exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    ratio = _get_sampling_ratio(provider.sampler)
    if ratio is not None:
        provider = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("diptych"), ratio, provider.shutdown


def _get_sampling_ratio(sampler: Sampler) -> float | None:
    """Return the ratio of new traces that a sampler samples; None if it depends on more than a ratio."""
    root = getattr(sampler, "_root", None) if isinstance(sampler, ParentBased) else None
    if isinstance(root, TraceIdRatioBased):
        return root.rate
    if root is ALWAYS_ON:
        return 1.0
    return 0.0 if root is ALWAYS_OFF else None


def start_metrics_export(resource: Resource) -> Callable[[], None]:
    """Export metrics periodically in a thread; return a function that exports a last time and stops.

    Raises:
        InvalidSetting: OTEL_METRIC_EXPORT_INTERVAL is not a number of milliseconds.
    """
    interval = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or "60000"
    if not interval.isdecimal() or not int(interval):
        raise InvalidSetting(f"OTEL_METRIC_EXPORT_INTERVAL={interval}: not a number of milliseconds")
    exporter, stopping, start = OTLPMetricExporter(), Event(), time_ns()
    failures = logs.RepeatedErrors(log, "Metrics export failed")

    def export() -> None:
        try:
            exporter.export(_collect(resource, start))
            failures.reset()
        except Exception as error:  # the next export includes the same sums
            failures.report(error)

    def export_periodically() -> None:
        while not stopping.wait(int(interval) / 1000):
            export()
        export()

    thread = Thread(target=export_periodically, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join()
        exporter.shutdown()

    return stop


def _collect(resource: Resource, start: int) -> MetricsData:
    now = time_ns()
    metrics = [
        Metric(instrument.name, instrument.description, instrument.unit, points)
        for instrument in instruments.list_instruments()
        if (points := _build_points(instrument, start, now)).data_points
    ]
    url = resource.schema_url
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(_SCOPE, metrics, url)], url)])


def _build_points(
    instrument: Counter | instruments.Histogram | instruments.Gauge, start: int, now: int
) -> Sum | Histogram | Gauge:
    if isinstance(instrument, Counter):
        sums = [
            NumberDataPoint(instrument.name_values(key), start, now, value)
            for key, value in instrument.sums.copy().items()
        ]
        return Sum(sums, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    if isinstance(instrument, instruments.Histogram):
        return Histogram(_build_histogram_points(instrument, start, now), AggregationTemporality.CUMULATIVE)
    values = instrument.read_values()
    return Gauge([NumberDataPoint(instrument.name_values(key), start, now, values[key]) for key in values])


def _build_histogram_points(
    instrument: instruments.Histogram, start: int, now: int
) -> list[HistogramDataPoint]:
    return [
        HistogramDataPoint(
            attributes=instrument.name_values(key),
            start_time_unix_nano=start,
            time_unix_nano=now,
            count=sum(buckets := tuple(distribution.buckets)),
            sum=distribution.total,
            bucket_counts=buckets,
            explicit_bounds=instrument.bounds,
            min=distribution.minimum,
            max=distribution.maximum,
        )
        for key, distribution in instrument.distributions.copy().items()
    ]
