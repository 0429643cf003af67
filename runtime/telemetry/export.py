"""The OpenTelemetry SDK, set up to export over OTLP/gRPC; imported only where the environment asks for it."""

import os
from collections.abc import Callable
from threading import Event, Thread, Timer
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
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Tracer

from runtime.process import logs
from runtime.process.start_error import StartError
from runtime.telemetry.instruments import BOUNDS, Counter, Durations, Instruments, Level

_PATIENCE = 2.0
"""Seconds that the end of the process waits for a collector that may be away, for traces and for metrics."""
log = logs.get_logger(__name__)

_SCOPE = InstrumentationScope("diptych")


def resource(service: str) -> Resource:
    """Return what is said of this process: OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME or its name."""
    return Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service})


def tracer(resource: Resource) -> tuple[Tracer, float | None, Callable[[], None]]:
    """Return a tracer, the share of new traces that it is for, and a function that exports the rest and ends.

    The share is that of the sampler which the environment asks for; whoever begins a trace decides by it,
    before there is anything to throw away. It is None where the tracer decides, since its sampler goes by
    more than chance.
    """
    exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    share = _share(provider.sampler)
    if share is not None:
        provider = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("diptych"), share, _patient(provider.shutdown, exporter.shutdown)


def _share(sampler: Sampler) -> float | None:
    """Return the share of traces that a sampler samples where they begin; None where it depends."""
    root = getattr(sampler, "_root", None) if isinstance(sampler, ParentBased) else None
    if isinstance(root, TraceIdRatioBased):
        return root.rate
    if root is ALWAYS_ON:
        return 1.0
    return 0.0 if root is ALWAYS_OFF else None


def export_metrics(resource: Resource, instruments: Instruments) -> Callable[[], None]:
    """Export what is measured again and again; return a function that does so for the last time and ends.

    Raises:
        StartError: OTEL_METRIC_EXPORT_INTERVAL is not a number of milliseconds.
    """
    interval = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or "60000"
    if not interval.isdecimal() or not int(interval):
        raise StartError(f"OTEL_METRIC_EXPORT_INTERVAL={interval}: not a number of milliseconds")
    exporter, ending, start = OTLPMetricExporter(), Event(), time_ns()

    def export() -> None:
        try:
            exporter.export(_data(resource, instruments, start))
        except Exception:  # the next time may go better
            log.exception("Metrics could not be exported")

    def export_until_the_end() -> None:
        while not ending.wait(int(interval) / 1000):
            export()
        export()

    thread = Thread(target=export_until_the_end, name="metrics", daemon=True)
    thread.start()

    def end() -> None:
        ending.set()
        thread.join()
        exporter.shutdown()

    return _patient(end, exporter.shutdown)


def _data(resource: Resource, instruments: Instruments, start: int) -> MetricsData:
    now = time_ns()
    metrics = [
        Metric(instrument.name, instrument.description, instrument.unit, points)
        for instrument in instruments.all
        if (points := _points(instrument, start, now)).data_points
    ]
    url = resource.schema_url
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(_SCOPE, metrics, url)], url)])


def _points(instrument: Counter | Durations | Level, start: int, now: int) -> Sum | Histogram | Gauge:
    match instrument:
        case Counter():
            sums = [
                NumberDataPoint(instrument.attributes(*key), start, now, value)
                for key, value in instrument.sums.copy().items()
            ]
            return Sum(sums, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        case Durations():
            spreads = [
                HistogramDataPoint(
                    attributes=instrument.attributes(*key),
                    start_time_unix_nano=start,
                    time_unix_nano=now,
                    count=sum(buckets := tuple(spread.buckets)),
                    sum=spread.total,
                    bucket_counts=buckets,
                    explicit_bounds=BOUNDS,
                    min=spread.least,
                    max=spread.most,
                )
                for key, spread in instrument.spreads.copy().items()
            ]
            return Histogram(spreads, AggregationTemporality.CUMULATIVE)
        case Level(value=value):
            return Gauge([] if value is None else [NumberDataPoint({}, start, now, value)])


def _patient(end: Callable[[], None], give_up: Callable[[], None]) -> Callable[[], None]:
    """Return `end`, cut short by `give_up`: the SDK's own time-outs do not bound its retries."""

    def bounded() -> None:
        timer = Timer(_PATIENCE, give_up)
        timer.start()
        end()
        timer.cancel()

    return bounded
