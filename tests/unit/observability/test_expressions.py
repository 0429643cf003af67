"""Alerts and dashboards name metrics and labels that processes export."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from devstack.describe_metrics import find_metrics
from runtime.telemetry.instruments import Counter, Gauge, Histogram
from runtime.telemetry.prometheus_text import render_text
from runtime.telemetry.snapshots import Buckets, MetricSnapshot, Point
from tests.support.harness.expressions import Expression, list_expressions, read_recorded

TARGET_LABELS = {"job", "instance", "worker"}
"""The labels of a scraped process, and of the worker of a gauge."""


def exported() -> Iterator[tuple[str, set[str]]]:
    """Yield the name and labels of each series that processes can export."""
    yield "up", TARGET_LABELS
    for name, expression in read_recorded().items():
        yield name, Expression(name, expression).labels
    snapshots = [build_snapshot(metric) for _, metric in find_metrics()]
    families = text_string_to_metric_families(render_text(snapshots, {}).decode())
    for family in families:
        for sample in family.samples:
            yield sample.name, {*sample.labels, *TARGET_LABELS}


def build_snapshot(metric: Counter | Histogram | Gauge) -> MetricSnapshot:
    """Return a metric with one value that has all attributes."""
    attributes: dict[str, str | bool | int] = dict.fromkeys(metric.attributes, "any")
    labels = (metric.name, metric.unit, metric.description)
    if isinstance(metric, Histogram):
        counts = (1,) * (len(metric.bounds) + 1)
        point = Point(attributes, buckets=Buckets(counts, 1.0, None, None))
        return MetricSnapshot(*labels, "histogram", [point], metric.bounds)
    return MetricSnapshot(
        *labels, "counter" if isinstance(metric, Counter) else "gauge", [Point(attributes, number=1)]
    )


SERIES = dict(exported())


@pytest.mark.parametrize("expression", list_expressions(), ids=lambda expression: expression.place)
def test_an_expression_names_exported_metrics_and_labels(expression: Expression) -> None:
    assert expression.metrics
    assert expression.metrics <= SERIES.keys()
    labels = {label for metric in expression.metrics for label in SERIES[metric]}
    assert expression.labels <= labels
