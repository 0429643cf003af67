"""Metrics in Prometheus's text formats, with the names that OpenTelemetry's conventions give them there.

A name's dots become underscores; the unit is appended (`_seconds`), to a gauge of unit 1 `_ratio`, and
`_total` to a counter. Units in braces are dropped. An attribute's dots become underscores, too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any

from prometheus_client import exposition
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar

from runtime.telemetry import instruments
from runtime.telemetry.snapshots import Buckets, MetricSnapshot

TEXT_TYPE = exposition.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_TYPE = openmetrics.CONTENT_TYPE_LATEST

_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "min": "minutes",
    "h": "hours",
    "d": "days",
    "By": "bytes",
    "%": "percent",
}
_INVALID = re.compile(r"[^a-zA-Z0-9_]+|__+")


def render_text(snapshots: Iterable[MetricSnapshot], resource: Mapping[str, object]) -> bytes:
    """Return the format 0.0.4, which every Prometheus reads."""
    return bytes(exposition.generate_latest(_Families(snapshots, resource)))


def render_openmetrics(snapshots: Iterable[MetricSnapshot], resource: Mapping[str, object]) -> bytes:
    """Return OpenMetrics 1.0, which has exemplars."""
    generate: Any = openmetrics.generate_latest  # has no types
    return bytes(generate(_Families(snapshots, resource)))


class _Families:
    """A registry of prometheus_client."""

    def __init__(self, snapshots: Iterable[MetricSnapshot], resource: Mapping[str, object]) -> None:
        self._snapshots = snapshots
        self._resource = resource

    def collect(self) -> Iterator[Metric]:
        labels = {_clean(name): _write_value(value) for name, value in self._resource.items()}
        yield InfoMetricFamily("target", "Resource of this process", value=labels)
        for metric in self._snapshots:
            yield _build_family(metric)


def _build_family(metric: MetricSnapshot) -> Metric:
    unit = _UNITS.get(metric.unit, "")
    if metric.unit == "1" and metric.kind == "gauge":
        unit = "ratio"
    family = Metric(_clean(metric.name).removesuffix("_total"), metric.description, metric.kind, unit)
    for point in metric.points:
        labels = {_clean(name): _write_value(value) for name, value in point.attributes.items()}
        if point.buckets:
            _add_buckets(family, labels, metric.bounds, point.buckets)
        else:
            suffix = "_total" if metric.kind == "counter" else ""
            family.add_sample(family.name + suffix, labels, point.number)
    return family


def _add_buckets(family: Metric, labels: dict[str, str], bounds: Sequence[float], buckets: Buckets) -> None:
    sums = list(accumulate(buckets.counts))
    for number, (bound, count) in enumerate(zip((*bounds, inf), sums, strict=True)):
        exemplar = _build_exemplar(buckets.exemplars.get(number))
        bucket_labels = {**labels, "le": _write_bound(bound)}
        family.add_sample(f"{family.name}_bucket", bucket_labels, count, exemplar=exemplar)
    family.add_sample(f"{family.name}_count", labels, sums[-1])
    family.add_sample(f"{family.name}_sum", labels, buckets.total)


def _build_exemplar(exemplar: instruments.Exemplar | None) -> Exemplar | None:
    if exemplar is None:
        return None
    _, trace_id, span_id, _ = exemplar.traceparent.split("-")
    return Exemplar({"trace_id": trace_id, "span_id": span_id}, exemplar.value, exemplar.time_ns / 1e9)


def _write_bound(bound: float) -> str:
    return "+Inf" if bound == inf else str(float(bound))


def _clean(name: str) -> str:
    """Return a name with an underscore for each run of characters that Prometheus does not allow."""
    cleaned = _INVALID.sub("_", name)
    return f"_{cleaned}" if cleaned[:1].isdigit() else cleaned


def _write_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
