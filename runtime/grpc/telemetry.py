"""What is measured of every call: its duration by status, and a span where the trace is sampled."""

import asyncio
from time import perf_counter

from grpc import StatusCode
from opentelemetry.trace import SpanKind, Status
from opentelemetry.trace import StatusCode as SpanStatus

from runtime.grpc import metadata
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError
from runtime.telemetry import metrics, tracing
from runtime.telemetry.instruments import Instruments

_SERVER_FAULTS = {
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.UNIMPLEMENTED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
}
"""The statuses that make a server's span an error (OpenTelemetry's semantic conventions for gRPC)."""


def observe(method: Method, handler: Handler) -> Handler:
    """Measure a method's calls, and trace them where traces are on; do nothing where telemetry is off."""
    if metrics.instruments is not None:
        handler = _measured(method, handler, metrics.instruments)
    if tracing.tracer() is not None:
        handler = _traced(method, handler)
    return handler


def _measured(method: Method, handler: Handler, instruments: Instruments) -> Handler:
    name = method.path[1:]

    async def measured(request: object, context: Context) -> object:
        start = perf_counter()
        status = StatusCode.OK
        try:
            return await handler(request, context)
        except RpcError as error:
            status = error.code
            raise
        except asyncio.CancelledError:
            status = StatusCode.CANCELLED
            raise
        finally:
            instruments.call_answered(name, status.name, perf_counter() - start)

    return measured


def _traced(method: Method, handler: Handler) -> Handler:
    name = method.path[1:]
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}

    async def traced(request: object, context: Context) -> object:
        parent = _traceparent()
        with tracing.span(name, kind=SpanKind.SERVER, parent=parent, attributes=attributes) as span:
            status = StatusCode.OK
            try:
                return await handler(request, context)
            except asyncio.CancelledError:
                status = StatusCode.CANCELLED
                raise
            except RpcError as error:
                status = error.code
                span.set_attribute("error.type", error.reason)
                if error.code in _SERVER_FAULTS:
                    span.set_status(Status(SpanStatus.ERROR, error.message))
                raise
            finally:
                span.set_attribute("rpc.response.status_code", status.name)

    return traced


def _traceparent() -> str | None:
    for key, value in metadata.of_call():
        if key == "traceparent":
            return str(value)
    return None
