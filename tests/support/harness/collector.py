"""An OpenTelemetry collector for tests, which keeps everything exported over OTLP/gRPC in memory."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc


@dataclass(frozen=True)
class Span:
    """An exported span. Ids are lower-case hexadecimal; `parent` is empty for a root."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: str
    status: str
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int
    links: tuple[tuple[str, str], ...]
    """The trace ids and span ids of linked spans."""


@dataclass(frozen=True)
class Point:
    """An exported data point of a metric, for one set of attributes."""

    service: str
    name: str
    unit: str
    attributes: dict[str, Any]
    count: float
    """The number of values of a histogram, or the value of a sum or gauge."""
    sum: float
    """The sum of a histogram's values, or the value of a sum or gauge."""


class Collector:
    """A collector on a free port, which listens from `start` to `stop`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.points: list[Point] = []
        """All points of all exports, the latest last."""
        self.versions: set[tuple[str, str]] = set()
        """Pairs of `service.name` and `service.version`."""
        self.port = 0
        self.hangs = False
        """Whether it accepts calls and never answers them."""
        self.calls = 0
        self._server: grpc.aio.Server | None = None
        self._arrived = asyncio.Event()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that exports to this collector at short intervals."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }

    async def start(self) -> None:
        self._server = grpc.aio.server()
        add_traces: Any = trace_grpc.add_TraceServiceServicer_to_server
        add_metrics: Any = metrics_grpc.add_MetricsServiceServicer_to_server
        add_traces(_Traces(self), self._server)
        add_metrics(_Metrics(self), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def receive(self) -> None:
        """Count a call; do not return if the collector hangs."""
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(None)

    async def span(self, matches: Callable[[Span], bool], seconds: float = 15.0) -> Span:
        """Wait for a matching span and return it."""
        async with asyncio.timeout(seconds):
            while not (spans := [span for span in self.spans if matches(span)]):
                await self._wait_for_export()
        return spans[0]

    async def point(self, matches: Callable[[Point], bool], seconds: float = 15.0) -> Point:
        """Wait for a matching point and return the latest one."""
        async with asyncio.timeout(seconds):
            while not (points := [point for point in self.points if matches(point)]):
                await self._wait_for_export()
        return points[-1]

    def add_resource(self, resource: Any) -> str:
        """Return the name of an exporting process, and keep its version."""
        attributes = _to_dict(resource.attributes)
        self.versions.add((attributes["service.name"], attributes["service.version"]))
        return str(attributes["service.name"])

    def notify(self) -> None:
        """Wake everything that waits for an export."""
        self._arrived.set()

    async def _wait_for_export(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()


class _Traces(trace_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._collector.receive()
        for resource in request.resource_spans:
            service = self._collector.add_resource(resource.resource)
            for scope in resource.scope_spans:
                self._collector.spans += [_to_span(service, span) for span in scope.spans]
        self._collector.notify()
        return trace_service.ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._collector.receive()
        for resource in request.resource_metrics:
            service = self._collector.add_resource(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._collector.points += _to_points(service, metric)
        self._collector.notify()
        return metrics_service.ExportMetricsServiceResponse()


def _to_span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        status=span.status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        attributes=_to_dict(span.attributes),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _to_points(service: str, metric: Any) -> list[Point]:
    kind = metric.WhichOneof("data")
    return [
        Point(
            service=service,
            name=metric.name,
            unit=metric.unit,
            attributes=_to_dict(point.attributes),
            count=point.count if kind == "histogram" else point.as_int or point.as_double,
            sum=point.sum if kind == "histogram" else point.as_int or point.as_double,
        )
        for point in getattr(metric, kind).data_points
    ]


def _to_dict(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
