"""Exports metrics periodically, in a thread, with an exporter of the SDK."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from time import time_ns
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from runtime.process import logs
from runtime.telemetry import instruments
from runtime.telemetry.snapshots import MetricSnapshot, Point, take_snapshots

log = logs.get_logger(__name__)

_SCOPE = InstrumentationScope("diptych")


def start_metric_export(
    resource: Resource, exporter: MetricExporter, interval: float, delta: bool = False
) -> Callable[[], None]:
    """Export metrics in a thread; return a function that exports a last time and stops.

    Args:
        resource: of this process.
        exporter: of the SDK.
        interval: seconds between two exports.
        delta: whether counters and histograms are exported as the differences between two exports.
    """
    converter, stopping = MetricConverter(resource, delta), Event()
    failures = logs.RepeatedErrors(log, "Metrics export failed")

    def export() -> None:
        try:
            exporter.export(converter.convert(take_snapshots(), time_ns()))
            failures.reset()
        except Exception as error:  # a bug, since exporters report their failures themselves
            failures.report(error)

    def export_periodically() -> None:
        while not stopping.wait(interval):
            export()
        export()

    thread = Thread(target=export_periodically, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join()
        exporter.shutdown()

    return stop


@dataclass
class MetricConverter:
    """Turns snapshots into the SDK's data.

    With delta temporality a failed export is lost, as with the SDK's own instruments: to send its differences
    again would count those twice that arrived although the answer did not.
    """

    resource: Resource
    delta: bool = False
    _start: int = field(default_factory=time_ns)
    _previous: dict[tuple[str, Any], Point] = field(default_factory=dict)

    def convert(self, snapshots: Sequence[MetricSnapshot], now: int) -> MetricsData:
        metrics = [
            Metric(metric.name, metric.description, metric.unit, self._build_data(metric, now))
            for metric in snapshots
        ]
        if self.delta:
            self._start = now
        url = self.resource.schema_url
        return MetricsData([ResourceMetrics(self.resource, [ScopeMetrics(_SCOPE, metrics, url)], url)])

    def _build_data(self, metric: MetricSnapshot, now: int) -> Sum | Histogram | Gauge:
        temporality = AggregationTemporality.DELTA if self.delta else AggregationTemporality.CUMULATIVE
        if metric.kind == "histogram":
            points = [self._build_histogram_point(metric, point, now) for point in metric.points]
            return Histogram(points, temporality)
        numbers = [
            NumberDataPoint(point.attributes, self._start, now, self._take(metric, point).number)
            for point in metric.points
        ]
        return Gauge(numbers) if metric.kind == "gauge" else Sum(numbers, temporality, is_monotonic=True)

    def _build_histogram_point(self, metric: MetricSnapshot, point: Point, now: int) -> HistogramDataPoint:
        buckets: Any = self._take(metric, point).buckets
        return HistogramDataPoint(
            attributes=point.attributes,
            start_time_unix_nano=self._start,
            time_unix_nano=now,
            count=sum(buckets.counts),
            sum=buckets.total,
            bucket_counts=buckets.counts,
            explicit_bounds=metric.bounds,
            min=buckets.minimum,
            max=buckets.maximum,
            exemplars=list(map(_build_exemplar, buckets.exemplars.values())),
        )

    def _take(self, metric: MetricSnapshot, point: Point) -> Point:
        """Return the point to export: the sum, or its growth since the last export."""
        if not self.delta or metric.kind == "gauge":
            return point
        key = metric.name, point.key
        previous = self._previous.get(key)
        self._previous[key] = point
        return point if previous is None else point - previous


def _build_exemplar(exemplar: instruments.Exemplar) -> Exemplar:
    _, trace_id, span_id, _ = exemplar.traceparent.split("-")
    return Exemplar({}, exemplar.value, exemplar.time_ns, int(span_id, 16), int(trace_id, 16))
