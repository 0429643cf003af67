"""Everything else that a process prints becomes log lines, or at least cannot make it wait or end.

How it works. `take_over` is for processes, not for command lines.

- `sys.stdout` and `sys.stderr` become `_LineStream`s: what libraries print is logged line by line.
- Uncaught exceptions of threads and destructors, and warnings, are logged.
- Libraries in C, and Python in a fatal error, write to descriptor 2. It keeps its place, but never blocks: a
  pipe or terminal that nobody reads loses what does not fit.
- Descriptors 0 to 2 that are closed are opened on /dev/null. A socket with the number 1 would be written to.
"""

import faulthandler
import fcntl
import io
import logging
import os
import select
import stat
import sys
import threading
from collections import Counter
from contextlib import suppress
from time import monotonic
from typing import Any

from runtime.process.logs.lines import MAX_LINE_LENGTH
from runtime.process.logs.logger import Logger, pipeline
from runtime.process.logs.stream_writer import FLUSH_TIMEOUT

STDOUT, STDERR = 1, 2
_MAX_LIBRARY_LINES = 10
"""Lines of one library logger in a second."""
_LIBRARY_LEVELS = (("error", logging.ERROR), ("warning", logging.WARNING), ("info", logging.INFO))


def open_log_stream() -> int:
    """Return a descriptor of its own for stdout; of /dev/null if the process was started without one."""
    if sys.__stdout__ is not None:
        with suppress(OSError):
            return os.dup(STDOUT)
    return os.open(os.devnull, os.O_WRONLY)


def write_to_stderr(text: str) -> None:
    """Write to descriptor 2, whatever `sys.stderr` is; give up after a second, and ignore errors."""
    with suppress(OSError, ValueError):
        if select.select([], [STDERR], [], FLUSH_TIMEOUT)[1]:
            os.write(STDERR, text.encode("utf-8", "backslashreplace"))


def take_over() -> None:
    """Route the output of this process into the log; call it after `configure`."""
    _open_missing_descriptors()
    _prevent_blocking(STDERR)
    sys.stdout = _LineStream("stdout", STDOUT)
    sys.stderr = _LineStream("stderr", STDERR)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_failure
    sys.unraisablehook = _log_unraisable
    faulthandler.enable(STDERR)


def _open_missing_descriptors() -> None:
    for number in (0, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:  # otherwise it got the number by itself
                os.dup2(null, number)
                os.close(null)


def _prevent_blocking(descriptor: int) -> None:
    """Make writes to a pipe, socket or terminal fail where they would wait."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return
    with suppress(OSError):
        # O_NONBLOCK belongs to the open file, which a shell may share. Opened again, it is ours.
        own = os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        os.dup2(own, descriptor)
        os.close(own)
        return
    with suppress(OSError):  # a socket, or a pipe of another user
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)


class _LineStream(io.TextIOBase):
    """A text stream that logs each line."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor
        self._level = "warning" if descriptor == STDERR else "info"
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > MAX_LINE_LENGTH:
            lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            if line.strip():
                _log(self._level, self._name, line, {})
        return len(text)


class ConsoleStream(io.TextIOBase):
    """A text stream whose complete lines go to the stream of the log as they are."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        pipeline.writer.add(text.encode("utf-8", "backslashreplace"), False)
        return len(text)


class LibraryHandler(logging.Handler):
    """Turns records of Python's `logging` into lines, a limited number a second of each logger.

    Callers can make libraries log: grpcio does so for every call with a header that is no UTF-8.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()
        """The records of each logger since `_counted_since`."""
        self._counted_since = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_too_many(record):
            return
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the message
            message = str(record.msg)
        level = next((name for name, number in _LIBRARY_LEVELS if record.levelno >= number), "debug")
        _log(level, record.name, message, {"exc_info": record.exc_info} if record.exc_info else {})

    def _is_too_many(self, record: logging.LogRecord) -> bool:
        if (now := monotonic()) - self._counted_since >= 1.0:
            for name, count in self._counts.items():
                if count > _MAX_LIBRARY_LINES:
                    _log("warning", name, "Lines omitted", {"omitted": count - _MAX_LIBRARY_LINES})
            self._counts.clear()
            self._counted_since = now
        self._counts[record.name] += 1
        return self._counts[record.name] > _MAX_LIBRARY_LINES


def _log(level: str, logger: str, message: str, fields: dict[str, Any]) -> None:
    getattr(Logger(logger), level)(message, **fields)


_log_own = Logger(__name__)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    _log_own.error("Process failed", exc_info=error)
    pipeline.writer.flush(FLUSH_TIMEOUT)


def _log_thread_failure(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is not SystemExit:
        name = arguments.thread.name if arguments.thread else ""
        _log_own.error("Thread failed", thread=name, exc_info=arguments.exc_value)


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    text = unraisable.err_msg or "Exception ignored"
    _log_own.error("Exception ignored", context=text, exc_info=unraisable.exc_value)
