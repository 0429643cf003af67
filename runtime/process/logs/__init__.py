"""Structured logs: one line per event on stdout, as JSON or coloured text.

How it works. A logger renders its line at once, in the caller's thread (`lines`), and hands it to the writer
(`stream_writer`), whose thread writes batches to the stream. A call of a logger never raises and never waits:
anything can be rendered, as one line of bounded length, and lines that the stream does not take are counted
and dropped once the queue is full. `output` routes whatever else a process prints into the same lines.
"""

import logging
import os
from typing import BinaryIO

from runtime.process.logs.console import render_console
from runtime.process.logs.limited_errors import LimitedErrors
from runtime.process.logs.lines import render_json
from runtime.process.logs.logger import LEVELS, Logger, pipeline
from runtime.process.logs.output import LibraryHandler, open_log_stream
from runtime.process.logs.repeated_errors import RepeatedErrors
from runtime.process.logs.stream_writer import FLUSH_TIMEOUT, FileWriter, StreamWriter

__all__ = ["LimitedErrors", "Logger", "RepeatedErrors", "configure", "flush", "get_logger"]


def get_logger(name: str) -> Logger:
    """Return a logger; its methods take fields as keywords: `log.info("Order stored", orderId=…)`."""
    return Logger(name)


def flush() -> bool:
    """Wait until all previous lines are written, at most a second; return whether they are."""
    return pipeline.writer.flush(FLUSH_TIMEOUT)


def configure(
    level: str = "info",
    format: str = "json",  # noqa: A002
    file: BinaryIO | None = None,
    *,
    service: str = "",
) -> None:
    """Set up logging for this process. Lines logged before go to stderr.

    Args:
        level: debug, info, warning or error; lines below it are dropped at almost no cost.
        format: json or console.
        file: the output, written by the threads that log; None for stdout, written by a thread of its own.
        service: the field `service`, unless OTEL_SERVICE_NAME overrides it, as in traces and metrics.
    """
    flush()
    pipeline.threshold = LEVELS[level]
    pipeline.render = render_json if format == "json" else render_console
    pipeline.service = os.environ.get("OTEL_SERVICE_NAME") or service
    pipeline.writer = (
        FileWriter(file) if file else StreamWriter(open_log_stream(), report_loss=pipeline.report_loss)
    )
    # Libraries log at least warnings.
    logging.basicConfig(
        handlers=[LibraryHandler()], level=max(pipeline.threshold, logging.WARNING), force=True
    )
    logging.captureWarnings(True)
