"""An OpenTelemetry collector for tests, which keeps everything exported over OTLP/gRPC in memory."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
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


@dataclass(frozen=True)
class Record:
    """An exported log record. Ids are lower-case hexadecimal, and empty without a span."""

    service: str
    scope: str
    severity: str
    severity_number: int
    body: str
    trace: str
    span: str
    time_ns: int
    attributes: dict[str, Any]


class Collector:
    """A collector on a free port, which listens from `start` to `stop`, and again there."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.points: list[Point] = []
        """All points of all exports, the latest last."""
        self.records: list[Record] = []
        self.resources: list[dict[str, Any]] = []
        """The resources of all exports."""
        self.temporalities: dict[str, int] = {}
        """The aggregation temporality of each counter and histogram, as in the protocol."""
        self.headers: list[dict[str, str]] = []
        """The headers of all exports, with names in lower case."""
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
            "OTEL_LOGS_EXPORTER": "none",
        }

    async def start(self, certificate: bytes = b"") -> None:
        """Listen; with a certificate and key in PEM with TLS, for clients that show this certificate."""
        self._server = grpc.aio.server()
        add_traces: Any = trace_grpc.add_TraceServiceServicer_to_server
        add_metrics: Any = metrics_grpc.add_MetricsServiceServicer_to_server
        add_traces(_Traces(self), self._server)
        add_metrics(_Metrics(self), self._server)
        add_logs: Any = logs_grpc.add_LogsServiceServicer_to_server
        add_logs(_Logs(self), self._server)
        if certificate:
            pairs = [(certificate, certificate)]
            credentials = grpc.ssl_server_credentials(pairs, certificate, require_client_auth=True)
            self.port = self._server.add_secure_port("localhost:0", credentials)
        else:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def receive(self, context: Any = None) -> None:
        """Count a call; do not return if the collector hangs."""
        self.calls += 1
        if context is not None:
            self.headers.append({key: str(value) for key, value in context.invocation_metadata()})
        if self.hangs:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

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

    async def record(self, matches: Callable[[Record], bool], seconds: float = 15.0) -> Record:
        """Wait for a matching log record and return it."""
        async with asyncio.timeout(seconds):
            while not (records := [record for record in self.records if matches(record)]):
                await self._wait_for_export()
        return records[0]

    def add_resource(self, resource: Any) -> str:
        """Return the name of an exporting process, and keep its version."""
        attributes = _to_dict(resource.attributes)
        self.resources.append(attributes)
        self.versions.add((attributes["service.name"], attributes["service.version"]))
        return str(attributes["service.name"])

    def add_traces(self, request: Any) -> None:
        for resource in request.resource_spans:
            service = self.add_resource(resource.resource)
            for scope in resource.scope_spans:
                self.spans += [_to_span(service, span) for span in scope.spans]
        self.notify()

    def add_metrics(self, request: Any) -> None:
        for resource in request.resource_metrics:
            service = self.add_resource(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.points += _to_points(service, metric)
                    if (kind := metric.WhichOneof("data")) != "gauge":
                        self.temporalities[metric.name] = getattr(metric, kind).aggregation_temporality
        self.notify()

    def add_logs(self, request: Any) -> None:
        for resource in request.resource_logs:
            service = self.add_resource(resource.resource)
            for scope in resource.scope_logs:
                self.records += [_to_record(service, scope.scope.name, found) for found in scope.log_records]
        self.notify()

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
        await self._collector.receive(context)
        self._collector.add_traces(request)
        return trace_service.ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._collector.receive(context)
        self._collector.add_metrics(request)
        return metrics_service.ExportMetricsServiceResponse()


class _Logs(logs_grpc.LogsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._collector.receive(context)
        self._collector.add_logs(request)
        return logs_service.ExportLogsServiceResponse()


def _to_record(service: str, scope: str, record: Any) -> Record:
    return Record(
        service,
        scope,
        record.severity_text,
        record.severity_number,
        record.body.string_value,
        record.trace_id.hex(),
        record.span_id.hex(),
        record.time_unix_nano,
        _to_dict(record.attributes),
    )


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
