"""Exporters whose failures are logged once: a line when they begin, and one when an export works again.

How it works. The SDK logs each attempt that fails, in the thread of the export. A handler of its loggers
keeps these lines as the cause, and writes all others. While exports fail it also leaves out that a queue is
full, which the SDK would repeat every 20 seconds.
"""

import logging
from threading import local
from typing import Any

from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error

log = logs.get_logger(__name__)

_QUEUE_FULL = "Queue full"
_failing: set[object] = set()
"""The exporters whose last export failed."""
_running = local()
"""Of each thread: `causes`, the SDK's lines about the export under way."""


class ReportedExporter:
    """An exporter of the SDK that reports its failures, and raises none.

    Args:
        exporter: of one signal.
        signal: `traces`, `metrics` or `logs`.
        endpoint: of the collector, for the log.
    """

    def __init__(self, exporter: Any, signal: str, endpoint: str) -> None:
        self._exporter = exporter
        self._failures = logs.RepeatedErrors(
            log, "Telemetry export failed", max_texts=1, signal=signal, endpoint=endpoint
        )
        self.force_flush = exporter.force_flush
        _take_over_sdk_lines(exporter)

    def export(self, batch: Any) -> Any:
        """Export a batch; return the SDK's result, or None if the exporter has raised an exception."""
        causes: list[str] = []
        _running.causes = causes
        try:
            result = self._exporter.export(batch)
        except Exception as error:
            result = None
            causes.append(describe_error(error))
        finally:
            _running.causes = None
        if result is not None and result.name == "SUCCESS":
            _failing.discard(self)
            self._failures.reset()
            return result
        _failing.add(self)
        self._failures.report(causes[0] if causes else "no success")
        return result

    def shutdown(self) -> None:
        _failing.discard(self)
        self._exporter.shutdown()


class _SdkHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        causes = getattr(_running, "causes", None)
        if causes is not None and record.levelno >= logging.WARNING:
            causes.append(record.getMessage())
        elif not (_failing and str(record.msg).startswith(_QUEUE_FULL)):
            logging.getLogger().handle(record)


def _take_over_sdk_lines(exporter: Any) -> None:
    logger = logging.getLogger("opentelemetry")
    if logger.propagate:
        logger.propagate = False
        logger.addHandler(_SdkHandler())
    for each in type(exporter).__mro__:
        # A filter drops lines that equal the last one, which may be about another signal.
        logging.getLogger(each.__module__).filters.clear()
