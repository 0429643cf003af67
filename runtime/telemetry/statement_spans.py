"""Spans of the statements that SQLAlchemy executes for a call whose trace is sampled.

The hot paths execute their statements on the driver, beside SQLAlchemy, and record spans of their own.
"""

from time import time_ns
from typing import Any

from opentelemetry.trace import SpanKind
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.telemetry import trace_context, tracing

_STARTED = "diptych.started_ns"
"""Key of the connection's start times in `Connection.info`."""


def trace_statements(engine: AsyncEngine) -> None:
    """Record a span for each statement of this engine in a call with a span that has not ended."""
    event.listen(engine.sync_engine, "before_cursor_execute", _begin)
    event.listen(engine.sync_engine, "after_cursor_execute", _end)
    event.listen(engine.sync_engine, "handle_error", _fail)


def _begin(connection: Any, *_: object) -> None:
    traceparent = trace_context.get_current()
    if trace_context.is_sampled(traceparent) and tracing.find_open_span(traceparent) is not None:
        connection.info[_STARTED] = time_ns()


def _end(connection: Any, _cursor: object, statement: str, *_: object) -> None:
    _record(connection, statement, "")


def _fail(context: Any) -> None:
    if context.connection is not None and context.statement is not None:
        _record(context.connection, context.statement, type(context.original_exception).__name__)


def _record(connection: Any, statement: str, error: str) -> None:
    if (start := connection.info.pop(_STARTED, None)) is None:
        return
    operation = statement.split(None, 1)[0].upper()
    tracing.record_span(
        operation,
        parent=trace_context.get_current(),
        start_ns=start,
        end_ns=time_ns(),
        kind=SpanKind.CLIENT,
        attributes={"db.system.name": "postgresql", "db.operation.name": operation},
        error=error,
    )
