"""Structured logs: one line per event on stdout, as JSON or coloured text.

Every line has a UTC timestamp, a level, a logger and a message, and the trace id if the trace is sampled.
Log records of libraries (Python's `logging`) become lines of the same form.
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
_FLUSH_DELAY = 0.02
"""Seconds that a line waits for further lines before they are written together."""
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger; its methods take fields as keywords: `log.info("Order stored", orderId=…)`."""
    return structlog.get_logger(logger_name=name)  # type: ignore[no-any-return]


def flush() -> None:
    """Write all delayed lines, for instance before a message to stderr that must follow them."""
    if _lines is not None:
        _lines.flush()


def configure(level: str = "info", format: str = "json", file: BinaryIO | None = None) -> None:  # noqa: A002
    """Set up logging for this process; call it before the first line is logged.

    Args:
        level: debug, info, warning or error; lines below it are dropped at almost no cost.
        format: json or console.
        file: the output; None for stdout.
    """
    global _lines
    flush()
    lines = _lines = _LineWriter(file or sys.stdout.buffer)
    structlog.configure(
        processors=[_render_json] if format == "json" else [_prepare_console, _create_console_renderer()],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    # Libraries log at least warnings; the root handler passes their records to structlog.
    logging.basicConfig(
        handlers=[_StructlogHandler()], level=max(_LEVELS[level], logging.WARNING), force=True
    )
    logging.captureWarnings(True)


_lines: "_LineWriter | None" = None


class _LineWriter:
    """Writes lines up to level info in batches after a delay of 20 ms, warnings and errors at once.

    One write per line would cost a busy server a tenth of its time. A killed process can lose its last lines.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer: list[bytes] = []
        self._write_lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop with a scheduled flush; None if there is none."""
        atexit.register(self.flush)

    def info(self, line: bytes) -> None:
        self._buffer.append(line + b"\n")
        loop = asyncio._get_running_loop()
        if loop is None:
            self.flush()
        elif self._loop is not loop:
            self._loop = loop
            loop.call_later(_FLUSH_DELAY, self.flush)

    def error(self, line: bytes) -> None:
        self._buffer.append(line + b"\n")
        self.flush()

    debug = msg = info
    warn = warning = critical = fatal = failure = exception = error

    def flush(self) -> None:
        with self._write_lock:
            self._loop, lines, self._buffer = None, self._buffer, []
            if lines:
                self._file.write(b"".join(lines))
                self._file.flush()


def _build_fields(level: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return a line's fields in their order of output. Fields of the caller override the standard ones."""
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
    if exc_info := line.pop("exc_info", None):
        line["exception"] = _format_traceback(exc_info)
    return line


def _format_traceback(exc_info: Any) -> str:
    """Format an exception, an exc_info tuple or, for True, the exception being handled."""
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    elif isinstance(exc_info, BaseException):
        error = exc_info
    else:
        error = sys.exception()
    return "".join(traceback.format_exception(error)) if error else ""


def _render_json(_logger: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
    return _encode(_build_fields(level, event))


def _prepare_console(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    line = _build_fields(level, event)
    line["event"] = line.pop("message")
    line["timestamp"] = str(line["timestamp"])[11:23]  # the time of day to the millisecond
    return line


def _create_console_renderer() -> structlog.typing.Processor:
    """Return a renderer of coloured lines. It colours pipes too, since the local stack reads one."""
    render = structlog.dev.ConsoleRenderer(colors=True, force_colors=True, pad_event_to=28)
    return lambda logger, level, event: str(render(logger, level, event)).encode()


class _StructlogHandler(logging.Handler):
    """Passes records of Python's `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(logger_name=record.name)
        level = min(max(record.levelno, logging.DEBUG), logging.ERROR)
        log.log(level, record.getMessage(), **({"exc_info": record.exc_info} if record.exc_info else {}))
