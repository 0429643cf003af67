"""Loggers, and the pipeline that all loggers of a process share: level, format and writer."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from runtime.process.logs.console import render_console
from runtime.process.logs.lines import render_json

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Writer(Protocol):
    """Takes rendered lines, each with its line end."""

    def add(self, line: bytes, urgent: bool) -> None:
        """Take a line without raising or waiting; an urgent one is written without delay."""

    def flush(self, seconds: float) -> bool:
        """Wait until the lines so far are written, but no longer than this; return whether they are."""


class _StderrWriter:
    """The writer before `configure`: it looks `sys.stderr` up for each line, because tests replace it."""

    def add(self, line: bytes, _urgent: bool) -> None:
        with suppress(Exception):  # a log line never raises, and there is nowhere else to report it
            sys.stderr.write(line.decode())

    def flush(self, _seconds: float) -> bool:
        return True


Render = Callable[[str, str, str, str, Mapping[str, Any]], bytes]
"""Returns a line from service, level, logger, message and fields; never raises."""


class Pipeline:
    """What `configure` sets for all loggers, those created before it included."""

    __slots__ = ("export", "render", "service", "threshold", "writer")

    def __init__(self) -> None:
        self.threshold = LEVELS["info"]
        self.render: Render = render_console
        self.service = ""
        self.writer: Writer = _StderrWriter()
        self.export: Writer | None = None
        """Takes all lines as JSON, for their export; None while they are not exported."""

    def log(self, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> None:
        try:
            line = self.render(self.service, level, logger, message, fields)
        except Exception:  # for instance a RecursionError, so close to the limit that nothing can be rendered
            line = b'{"level":"error","message":"Line could not be rendered"}\n'
        self.writer.add(line, level == "error")
        if self.export is not None:
            if self.render is not render_json:
                line = render_json(self.service, level, logger, message, fields)
            self.export.add(line, level == "error")

    def report_loss(self, count: int, error: str) -> bytes:
        """Return the line that reports dropped lines."""
        fields = {"count": count, "error": error}
        return self.render(self.service, "warning", __name__, "Log lines dropped", fields)


pipeline = Pipeline()


class Logger:
    """Logs events: a message, which is the same for every event of its kind, and fields.

    The field `exc_info` takes an exception, or True for the one being handled, and adds its traceback.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str, /, **fields: Any) -> None:
        if pipeline.threshold <= 10:
            pipeline.log("debug", self._name, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        if pipeline.threshold <= 20:
            pipeline.log("info", self._name, message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        if pipeline.threshold <= 30:
            pipeline.log("warning", self._name, message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        pipeline.log("error", self._name, message, fields)

    def exception(self, message: str, /, **fields: Any) -> None:
        """Log an error with the traceback of the exception being handled."""
        pipeline.log("error", self._name, message, {"exc_info": True, **fields})

    def logs_debug(self) -> bool:
        """Return whether debug lines are written; ask before work that only such a line needs."""
        return pipeline.threshold <= 10
