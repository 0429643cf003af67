"""Telemetry of calls: the duration by status, a span if the trace is sampled, and a debug line of a query.

The trace context of a call is taken over from an authenticated caller alone: others could have any number of
traces sampled, or add to those of others.
"""

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from grpc import StatusCode
from opentelemetry.trace import SpanKind, Status
from opentelemetry.trace import StatusCode as SpanStatus

from runtime.grpc import caller, metadata
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.telemetry import metrics, trace_context, tracing

log = logs.get_logger(__name__)

_SERVER_FAULTS = {
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.UNIMPLEMENTED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
}
"""Statuses that count as errors of the server's span (OpenTelemetry's semantic conventions for gRPC)."""


def trace(method: Method, handler: Handler) -> Handler:
    """Trace the calls of a method; without traces, carry the caller's traceparent."""
    if log.logs_debug() and method.path.partition(".QueryService/")[1]:
        handler = _log_query(method, handler)
    return _trace(method, handler) if tracing.is_on() else _carry_trace(handler)


def _log_query(method: Method, handler: Handler) -> Handler:
    async def log_query(request: object, context: Context) -> object:
        start, outcome = perf_counter(), "OK"
        try:
            return await handler(request, context)
        except RpcError as error:
            outcome = error.reason
            raise
        except asyncio.CancelledError:
            outcome = StatusCode.CANCELLED.name
            raise
        finally:
            identity = caller.current_or_none()
            log.debug(
                "Query answered",
                method=method.path[1:],
                userId=identity and identity.subject,
                outcome=outcome,
                duration=round((perf_counter() - start) * 1000, 3),
                staleness=_find_staleness(context),
            )

    return log_query


def _find_staleness(context: Context) -> int | None:
    """Return the bound in milliseconds that the response states, if there is one."""
    for key, value in context.trailing_metadata():
        if key == metadata.STALENESS:
            return int(value)
    return None


def measure(method: Method, handler: Handler) -> Handler:
    """Record the durations of a method's calls by their status."""
    name, record = method.path[1:], metrics.CALL_DURATION.record

    async def measure_call(request: object, context: Context) -> object:
        start = perf_counter()
        status, error_type = "OK", None
        try:
            return await handler(request, context)
        except RpcError as error:
            status = error_type = error.code.name
            raise
        except asyncio.CancelledError:
            status = error_type = StatusCode.CANCELLED.name
            raise
        finally:
            record(perf_counter() - start, "grpc", name, status, error_type)

    return measure_call


def _trace(method: Method, handler: Handler) -> Handler:
    name = method.path[1:]
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}

    def trace_call(request: object, context: Context) -> Awaitable[object]:
        parent = _find_traceparent()
        if (unsampled := tracing.begin(parent)) is not None:
            trace_context.set_current(unsampled)
            return handler(request, context)
        return trace_sampled_call(request, context, parent)

    async def trace_sampled_call(request: object, context: Context, parent: str | None) -> object:
        with tracing.begin_span(
            name, kind=SpanKind.SERVER, parent=parent, attributes=attributes, is_long=method.streams
        ) as span:
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

    return trace_call


def _carry_trace(handler: Handler) -> Handler:
    def carry_trace(request: object, context: Context) -> Awaitable[object]:
        if (parent := _find_traceparent()) is not None:
            trace_context.set_current(parent)
        return handler(request, context)

    return carry_trace


def _find_traceparent() -> str | None:
    """Return the caller's traceparent; None if there is none or several, it is malformed, or nobody's."""
    if caller.current_or_none() is None:
        return None
    found = None
    for key, value in metadata.current():
        if key == "traceparent":
            if found is not None:
                return None
            found = value
    return None if found is None else trace_context.parse(str(found))
