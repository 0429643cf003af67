"""Telemetry of commands: a decorator of `execute` that adds log lines and metrics, and the reports of folds
and of times that were set aside.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from math import inf
from time import monotonic, perf_counter

from command_server.kernel.batch import Request
from command_server.kernel.outcomes import Accepted, CommandResult, Outcome, Rejection
from command_server.kernel.stream_folder import StreamFolder
from command_server.service import REASON_OF_FAILURE, Execute
from contracts import streams
from runtime.process import logs
from runtime.telemetry import metrics

log = logs.get_logger(__name__)

REPORT_INTERVAL = 1.0
"""Seconds between two measurements of the folds under way."""
QUIET_PERIOD = 60.0
"""Seconds without a time that was set aside, after which the next one is logged again."""


def log_fold(stream: str, events: int, seconds: float) -> None:
    """Log that a long stream was folded before its next command."""
    log.info("Long stream folded", stream=stream, events=events, seconds=round(seconds, 3))


def log_unreadable_event(stream: str, version: int, error: Exception) -> None:
    """Log that an event is missing in an index, so that rules decide without it."""
    log.error("Event not indexed", stream=stream, version=version, error=repr(error))


async def report_folds(folder: StreamFolder) -> None:
    """Record the number and the age of the folds under way, every REPORT_INTERVAL seconds."""
    while True:
        metrics.folds_under_way(folder.count, folder.age)
        await asyncio.sleep(REPORT_INTERVAL)


def instrument(execute: Execute) -> Execute:
    """Return an `execute` that logs each command at its start and its end, and measures it."""

    async def observe(request: Request) -> CommandResult:
        log.info(
            "Processing command",
            commandId=request.request_id,
            commandType=request.kind.name,
            userId=request.caller,
            correlationId=request.correlation_id,
        )
        outcome: Outcome | BaseException | None = None
        try:
            result = await execute(request)
            outcome = result.outcome
            return result
        except BaseException as error:
            outcome = error
            raise
        finally:
            duration = perf_counter() - request.arrived_at
            metrics.command_processed(request.kind.name, isinstance(outcome, Accepted), duration)
            _log_end(request, outcome, duration)

    return observe


def _log_end(request: Request, outcome: Outcome | BaseException | None, duration: float) -> None:
    """Log how a command ended; `duration` in seconds, logged in milliseconds."""
    stream: str | None
    version, reason, error = None, None, None
    if isinstance(outcome, Accepted):
        name, (stream, version) = "accepted", next(iter(outcome.versions.items()))
    elif isinstance(outcome, Rejection):
        name, stream, reason = "rejected", _find_target(request), outcome.reason
    else:
        name, stream = "failed", _find_target(request)
        reason, error = REASON_OF_FAILURE.get(type(outcome), "INTERNAL"), str(outcome) or None
    write = log.warning if name == "failed" else log.info
    write(
        "Command processed",
        commandId=request.request_id,
        commandType=request.kind.name,
        userId=request.caller,
        correlationId=request.correlation_id,
        outcome=name,
        reason=reason,
        stream=stream,
        version=version,
        error=error,
        duration=round(duration * 1000, 3),
    )


def _find_target(request: Request) -> str | None:
    """Return the stream that a command addresses, as far as its own code can tell."""
    try:
        return next(iter(request.kind.decider.streams(request.command)))
    except Exception:
        return None


class TimeSetAsideReport:
    """Counts streams whose last time was set aside, and logs the first of those that follow each other."""

    def __init__(self) -> None:
        self._last = -inf

    def __call__(self, leads: Mapping[str, timedelta]) -> None:
        """Report the streams of one commit.

        Args:
            leads: how far the last event of each stream was ahead of the database's clock.
        """
        for stream in leads:
            metrics.stream_time_set_aside(streams.stream_type(stream))
        quiet, self._last = monotonic() - self._last > QUIET_PERIOD, monotonic()
        if quiet:
            stream, lead = max(leads.items(), key=lambda item: item[1])
            log.warning("Stream time set aside", stream=stream, lead=lead.total_seconds(), streams=len(leads))
