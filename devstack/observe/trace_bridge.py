"""Passes traces on to Zipkin: receives OTLP over gRPC and sends Zipkin's JSON.

Zipkin takes OTLP only with a module that is not published. A bridge keeps its format out of the processes,
which export as in production.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

_TIMEOUT = 5.0
"""Seconds that Zipkin may take for an export."""
_KINDS = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
"""OTLP's kinds of spans by number; an internal span has none in Zipkin."""
_ERROR_STATUS = 2

ZipkinSpan = dict[str, Any]


class TraceBridge(trace_grpc.TraceServiceServicer):
    """An OTLP receiver on 127.0.0.1.

    Args:
        port: its listening port.
        zipkin: the URL of Zipkin.
    """

    def __init__(self, port: int, zipkin: str) -> None:
        self._port = port
        self._spans_url = f"{zipkin}/api/v2/spans"
        self._open = build_opener(ProxyHandler({})).open  # no proxy leads to this machine
        self._server: grpc.aio.Server | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which processes export all of their traces to it."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{self._port}",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
        }

    async def start(self) -> None:
        self._server = grpc.aio.server()
        add_traces: Any = trace_grpc.add_TraceServiceServicer_to_server
        add_traces(self, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Send an export's spans to Zipkin; UNAVAILABLE makes the process send them again."""
        spans = list(convert_spans(request))
        try:
            await asyncio.to_thread(self._send, json.dumps(spans).encode())
        except OSError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"Zipkin does not take spans: {error}")
        return trace_service.ExportTraceServiceResponse()

    def _send(self, body: bytes) -> None:
        request = Request(self._spans_url, body, {"Content-Type": "application/json"})  # noqa: S310 - http
        self._open(request, timeout=_TIMEOUT).close()


def convert_spans(export: Any) -> Iterator[ZipkinSpan]:
    """Yield the spans of an OTLP export in Zipkin's format. Links, which it lacks, become tags."""
    for resource in export.resource_spans:
        process = _to_tags(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _convert_span(span, process)


def _convert_span(span: Any, process: dict[str, str]) -> ZipkinSpan:
    converted: ZipkinSpan = {
        "traceId": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "name": span.name,
        "timestamp": span.start_time_unix_nano // 1000,
        "duration": max(1, (span.end_time_unix_nano - span.start_time_unix_nano) // 1000),
        "localEndpoint": {"serviceName": process.get("service.name", "unknown")},
        "tags": _to_tags(span.attributes) | _link_tags(span) | _instance_tag(process),
        "annotations": [
            {"timestamp": event.time_unix_nano // 1000, "value": event.name} for event in span.events
        ],
    }
    if span.parent_span_id:
        converted["parentId"] = span.parent_span_id.hex()
    if span.kind in _KINDS:
        converted["kind"] = _KINDS[span.kind]
    if span.status.code == _ERROR_STATUS:
        converted["tags"]["error"] = span.status.message or "error"
    return converted


def _link_tags(span: Any) -> dict[str, str]:
    return {
        f"link.{number}": f"{link.trace_id.hex()}/{link.span_id.hex()}"
        for number, link in enumerate(span.links, 1)
    }


def _instance_tag(process: dict[str, str]) -> dict[str, str]:
    instance = process.get("service.instance.id")
    return {"service.instance.id": instance} if instance else {}


def _to_tags(attributes: Any) -> dict[str, str]:
    return {item.key: _to_text(item.value) for item in attributes}


def _to_text(value: Any) -> str:
    match value.WhichOneof("value"):
        case "array_value":
            return ", ".join(map(_to_text, value.array_value.values))
        case "bool_value":
            return str(value.bool_value).lower()
        case None:
            return ""
        case kind:
            return str(getattr(value, kind))
