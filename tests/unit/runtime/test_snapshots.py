"""Snapshots of metrics: summed over workers, and as differences between two exports."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from devstack.describe_metrics import find_metrics
from runtime.telemetry import instruments
from runtime.telemetry.instruments import Counter, Exemplar, Gauge, Histogram
from runtime.telemetry.metric_export import MetricConverter
from runtime.telemetry.metrics import WORKER_ANSWERING
from runtime.telemetry.prometheus_text import render_openmetrics
from runtime.telemetry.snapshots import Buckets, MetricSnapshot, Point, merge, take_snapshots
from runtime.telemetry.worker_metrics import WorkerMetrics
from tests.support.harness.waiting import until


def counter(value: int, **attributes: str) -> MetricSnapshot:
    return MetricSnapshot("c", "{event}", "Events", "counter", [Point({**attributes}, value)])


def gauge(value: float, **attributes: str) -> MetricSnapshot:
    return MetricSnapshot("g", "s", "Age", "gauge", [Point({**attributes}, value)])


def histogram(counts: tuple[int, ...], total: float, low: float, high: float) -> MetricSnapshot:
    point = Point({"m": "a"}, buckets=Buckets(counts, total, low, high))
    return MetricSnapshot("h", "s", "Durations", "histogram", [point], (0.1, 1.0))


def test_workers_counts_are_summed_and_gauges_kept_apart() -> None:
    one = [counter(1, t="a"), gauge(3, worker="1"), histogram((1, 0, 0), 0.05, 0.05, 0.05)]
    two = [counter(2, t="a"), counter(5, t="b"), gauge(4, worker="2"), histogram((0, 1, 1), 2.5, 0.5, 2.0)]
    merged = {metric.name: metric for metric in merge([one, two])}
    assert merged["c"].points == [Point({"t": "a"}, 3), Point({"t": "b"}, 5)]
    assert merged["g"].points == [Point({"worker": "1"}, 3), Point({"worker": "2"}, 4)]
    assert merged["h"].points == [Point({"m": "a"}, buckets=Buckets((1, 1, 1), 2.55, 0.05, 2.0))]


def export(converter: MetricConverter, metric: MetricSnapshot, now: int) -> Any:
    (resource,) = converter.convert([metric], now).resource_metrics
    (point,) = resource.scope_metrics[0].metrics[0].data.data_points
    return point


def test_with_delta_temporality_an_export_has_what_was_added() -> None:
    converter = MetricConverter(Resource({}), delta=True)
    assert export(converter, counter(3), 100).value == 3
    second = export(converter, counter(5), 200)
    assert (second.value, second.start_time_unix_nano, second.time_unix_nano) == (2, 100, 200)
    export(converter, histogram((1, 1, 0), 0.55, 0.05, 0.5), 300)
    point = export(converter, histogram((2, 1, 1), 2.65, 0.05, 2.0), 400)
    assert (point.bucket_counts, point.count, round(point.sum, 6)) == ((1, 0, 1), 2, 2.1)
    assert (point.min, point.max) == (None, None)
    assert export(converter, gauge(7), 500).value == 7
    assert export(converter, gauge(7), 600).value == 7


def test_exemplars_are_exported_and_a_difference_has_the_new_ones() -> None:
    trace, later = (Exemplar(0.5, f"00-{digit * 32}-{digit * 16}-01", 7) for digit in "12")
    first, second = histogram((0, 1, 0), 0.5, 0.5, 0.5), histogram((0, 2, 1), 3.0, 0.5, 2.0)
    for metric, exemplars in ((first, {1: trace}), (second, {1: trace, 2: later})):
        buckets: Any = metric.points[0].buckets
        buckets.exemplars.update(exemplars)
    converter = MetricConverter(Resource({}), delta=True)
    (exported,) = export(converter, first, 100).exemplars
    assert (exported.value, exported.time_unix_nano) == (0.5, 7)
    assert (exported.trace_id, exported.span_id) == (int("1" * 32, 16), int("1" * 16, 16))
    assert [each.span_id for each in export(converter, second, 200).exemplars] == [int("2" * 16, 16)]
    (merged,) = merge([[first], [second]])
    assert merged.points[0].buckets
    assert merged.points[0].buckets.exemplars == {1: trace, 2: later}
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(second), type=MetricSnapshot)
    assert sent == second, "a worker sends them to its parent"


def test_with_cumulative_temporality_an_export_has_all() -> None:
    converter = MetricConverter(Resource({}))
    first, second = export(converter, counter(3), 100), export(converter, counter(5), 200)
    assert (first.value, second.value) == (3, 5)
    assert first.start_time_unix_nano == second.start_time_unix_nano
    (resource,) = converter.convert([counter(3)], 300).resource_metrics
    data: Any = resource.scope_metrics[0].metrics[0].data
    assert (data.aggregation_temporality, data.is_monotonic) == (AggregationTemporality.CUMULATIVE, True)


def test_a_gauge_that_cannot_be_computed_hides_no_other_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "_registry", {})
    Gauge("diptych.broken", "1", "Broken").observe(fail)
    Gauge("diptych.sound", "1", "Sound").set(1)
    assert [snapshot.name for snapshot in take_snapshots()] == ["diptych.sound"]


def fail() -> float:
    raise KeyError("missing")


def test_every_metric_has_a_name_of_its_own_in_prometheus() -> None:
    """Prometheus refuses a whole scrape with a name twice; the strict parser refuses a malformed one."""
    declared = {metric.name: metric for _, metric in find_metrics()}
    snapshots = [sample(metric) for metric in declared.values()]
    parse: Any = parse_openmetrics  # has no types
    families = list(parse(render_openmetrics(snapshots, {}).decode()))
    names = [sample.name for family in families for sample in family.samples if "le" not in sample.labels]
    assert len(families) == len(declared) + 1  # and target_info
    assert len(names) == len(set(names))


def sample(metric: Counter | Gauge | Histogram) -> MetricSnapshot:
    """Return a snapshot of a metric with one value."""
    labels = metric.name, metric.unit, metric.description
    attributes: dict[str, str | bool | int] = dict.fromkeys(metric.attributes, "a")
    match metric:
        case Histogram():
            counts = (1,) * (len(metric.bounds) + 1)
            point = Point(attributes, buckets=Buckets(counts, 1.0, 1.0, 1.0))
            return MetricSnapshot(*labels, "histogram", [point], metric.bounds)
        case Counter():
            return MetricSnapshot(*labels, "counter", [Point(attributes, 1)])
        case Gauge():
            return MetricSnapshot(*labels, "gauge", [Point(attributes, 1)])


@pytest.fixture
def metrics() -> Iterator[WorkerMetrics]:
    yield WorkerMetrics()
    WORKER_ANSWERING.clear()


async def test_a_worker_that_has_ended_keeps_its_counts_and_answers_no_longer(metrics: WorkerMetrics) -> None:
    own, other = socket.socketpair()
    receiving = asyncio.create_task(metrics.receive(7, own))
    message = msgspec.msgpack.encode([counter(3, t="a"), gauge(1)])
    with other:
        await asyncio.to_thread(other.sendall, len(message).to_bytes(4, "big") + message)
        await until(lambda: read(metrics, "c") == [Point({"t": "a"}, 3)])
        assert read(metrics, "g") == [Point({"worker": "7"}, 1)]
        assert Point({"worker": "7"}, 1) in read(metrics, "diptych.worker.answering")
    await receiving
    assert read(metrics, "c") == [Point({"t": "a"}, 3)]
    assert read(metrics, "g") == []
    assert Point({"worker": "7"}, 0) in read(metrics, "diptych.worker.answering")


def read(metrics: WorkerMetrics, name: str) -> list[Point]:
    return next((snapshot.points for snapshot in metrics.collect() if snapshot.name == name), [])
