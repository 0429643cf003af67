"""The exporter of log lines: reads lines of JSON from stdin, and exports them as records of OpenTelemetry.

It ends when stdin ends, after an export of all lines that it has read. It has the `OTEL_*` variables of the
process whose lines it exports, and that process's resource as its argument.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from threading import Timer
from time import time_ns
from typing import Any, TextIO, cast

import msgspec
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    ConsoleLogRecordExporter,
    LogRecordExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from runtime.process import logs
from runtime.process.logs import output
from runtime.telemetry.log_export import EXPORT_TIMEOUT
from runtime.telemetry.otlp import create_exporter
from runtime.telemetry.telemetry_settings import TelemetrySettings, read_telemetry_settings

_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}
_TRACE_ID, _SPAN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def create_provider(settings: TelemetrySettings, resource: Mapping[str, Any]) -> LoggerProvider:
    """Return a provider that exports to all exporters of the settings."""
    provider = LoggerProvider(resource=Resource(resource), shutdown_on_exit=False)
    batches = settings.log_batches
    for name in settings.exporters["logs"]:
        processor = BatchLogRecordProcessor(
            _create_exporter(name, settings), batches.delay, batches.batch, batches.timeout, batches.queue
        )
        provider.add_log_record_processor(processor)
    return provider


def _create_exporter(name: str, settings: TelemetrySettings) -> LogRecordExporter:
    if name == "console":
        return ConsoleLogRecordExporter(
            out=cast(TextIO, output.ConsoleStream()),
            formatter=lambda record: record.to_json(indent=None) + "\n",
        )
    return cast(LogRecordExporter, create_exporter(settings.otlp["logs"]))


def parse_line(line: bytes) -> tuple[str, LogRecord]:
    """Return the logger's name and the record of a line; a torn line becomes a record with its text."""
    try:
        fields = _decode(line)
        time = datetime.fromisoformat(fields.pop("timestamp"))
        level, logger, message = (str(fields.pop(name)) for name in ("level", "logger", "message"))
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        return "", LogRecord(observed_timestamp=time_ns(), body=line.decode("utf-8", "replace").rstrip())
    fields.pop("service", None)  # the resource has it
    return logger, LogRecord(
        timestamp=int(time.timestamp() * 1_000_000) * 1_000,
        observed_timestamp=time_ns(),
        context=_pop_context(fields),
        severity_text=level,
        severity_number=_SEVERITIES.get(level, SeverityNumber.UNSPECIFIED),
        body=message,
        attributes=dict(_build_attributes(fields)),
    )


def _pop_context(fields: dict[str, Any]) -> Context:
    """Return the context of the line's span; a trace that is not sampled has an id, but no span."""
    trace, span = str(fields.pop("trace_id", "")), str(fields.pop("span_id", ""))
    if not _TRACE_ID.fullmatch(trace):
        return Context()
    ids = int(trace, 16), int(span, 16) if _SPAN_ID.fullmatch(span) else 0
    flags = TraceFlags(TraceFlags.SAMPLED if ids[1] else TraceFlags.DEFAULT)
    return set_span_in_context(
        NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=flags)), Context()
    )


def _build_attributes(fields: Mapping[str, Any]) -> Any:
    for name, value in fields.items():
        if name == "exception":
            yield from _build_exception(str(value))
        elif isinstance(value, list | dict):
            yield name, msgspec.json.encode(value).decode()
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            yield name, str(value)
        elif value is not None:
            yield name, value


def _build_exception(traceback: str) -> Any:
    """Yield the attributes of the conventions for an exception."""
    kind, _, message = traceback.rstrip().rpartition("\n")[2].partition(": ")
    yield "exception.stacktrace", traceback
    if kind.replace(".", "").isidentifier():
        yield "exception.type", kind
        yield "exception.message", message


def main() -> None:
    """Export lines until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group; the end of stdin counts
        signal.signal(number, signal.SIG_IGN)
    options = json.loads(sys.argv[1])
    logs.configure("info", options["format"], service=options["service"])
    output.take_over()
    provider = create_provider(read_telemetry_settings(), options["resource"])
    for line in sys.stdin.buffer:
        logger, record = parse_line(line)
        provider.get_logger(logger).emit(record)
    last = Timer(EXPORT_TIMEOUT, os._exit, (0,))
    last.daemon = True
    last.start()
    provider.shutdown()


if __name__ == "__main__":
    main()
