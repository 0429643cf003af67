"""What a process says while it runs: one line per fact on stdout, as JSON, or coloured for people.

Every line has a UTC timestamp, a level, its logger, a message, and the trace id where the trace is sampled.
Python's own logging (libraries) goes the same way.
"""

import asyncio
import atexit
import logging
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from threading import Lock
from typing import Any, BinaryIO

import msgspec
import structlog
from opentelemetry import trace

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MOMENT = 0.02
"""Seconds that a line may wait for others."""
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a part of the system; fields go by keyword: `log.info("Stored", orderId=...)`."""
    return structlog.get_logger(logger_name=name)  # type: ignore[no-any-return]


def flush() -> None:
    """Write the lines that wait for others; before another file gets one that belongs behind them."""
    if _lines is not None:
        _lines.flush()


def configure(level: str = "info", format: str = "json", file: BinaryIO | None = None) -> None:  # noqa: A002
    """Set up logging for this process; call it before the first line is logged.

    Args:
        level: debug, info, warning or error; lines below it cost next to nothing.
        format: json or console.
        file: where lines go; stdout where it is None.
    """
    global _lines
    flush()
    lines = _lines = _Lines(file or sys.stdout.buffer)
    structlog.configure(
        processors=[_json] if format == "json" else [_prepared, _console()],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    # Libraries speak up from warnings on; the root handler hands their lines to structlog.
    logging.basicConfig(handlers=[_Handler()], level=max(_LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(True)


_lines: "_Lines | None" = None


class _Lines:
    """Writes warnings at once, and lesser lines together with those of the next moment.

    A write for every line takes a busy server a tenth of its time. One that is killed may lose its last.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[bytes] = []
        self._writing = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that will write what waits."""
        atexit.register(self.flush)

    def info(self, line: bytes) -> None:
        self._waiting.append(line + b"\n")
        loop = asyncio._get_running_loop()
        if loop is None:
            self.flush()
        elif self._loop is not loop:
            self._loop = loop
            loop.call_later(_MOMENT, self.flush)

    def error(self, line: bytes) -> None:
        self._waiting.append(line + b"\n")
        self.flush()

    debug = msg = info
    warn = warning = critical = fatal = failure = exception = error

    def flush(self) -> None:
        with self._writing:
            self._loop, lines, self._waiting = None, self._waiting, []
            if lines:
                self._file.write(b"".join(lines))
                self._file.flush()


def _fields(level: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return a line's fields in reading order; a timestamp among the caller's fields takes precedence."""
    line = {
        "timestamp": datetime.now(UTC),
        "level": level,
        "logger": event.pop("logger_name", ""),
        "message": event.pop("event"),
    }
    span = trace.get_current_span()
    if span is not trace.INVALID_SPAN and (context := span.get_span_context()).trace_flags.sampled:
        line["trace_id"] = f"{context.trace_id:032x}"
    line |= event
    if failure := line.pop("exc_info", None):
        line["exception"] = _traceback(failure)
    return line


def _traceback(failure: Any) -> str:
    """Return the traceback of an exception, or of the one being handled where `failure` is True."""
    if isinstance(failure, tuple):
        failure = failure[1]
    elif not isinstance(failure, BaseException):
        failure = sys.exception()
    return "".join(traceback.format_exception(failure)) if failure else ""


def _json(_logger: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
    return _encode(_fields(level, event))


def _prepared(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    line = _fields(level, event)
    line["event"] = line.pop("message")
    line["timestamp"] = str(line["timestamp"])[11:23]  # the time of day to the millisecond
    return line


def _console() -> structlog.typing.Processor:
    """Return a renderer for people; coloured also into a pipe, since the local stack reads it through one."""
    render = structlog.dev.ConsoleRenderer(colors=True, force_colors=True, pad_event_to=28)
    return lambda logger, level, event: str(render(logger, level, event)).encode()


class _Handler(logging.Handler):
    """Hands the lines of Python's own logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(logger_name=record.name)
        level = min(max(record.levelno, logging.DEBUG), logging.ERROR)
        log.log(level, record.getMessage(), **({"exc_info": record.exc_info} if record.exc_info else {}))
