"""Telemetry of commands: a decorator of `execute` that adds log lines and metrics, and the reports of folds
and of times that were set aside.
"""

from collections.abc import Mapping
from datetime import timedelta
from math import inf
from time import monotonic, perf_counter

from command_server import metrics
from command_server.kernel.batch import Request
from command_server.kernel.outcomes import Accepted, CommandResult, Outcome, Rejection, RequestIdReused
from command_server.kernel.request_ages import RequestTooNew, RequestTooOld
from command_server.kernel.stream_folder import StreamFolder
from command_server.service import REASON_OF_FAILURE, Execute
from contracts import streams
from runtime.process import logs

log = logs.get_logger(__name__)

ACCEPTED, REJECTED, FAILED = "accepted", "rejected", "failed"
INVALID_REQUEST_IDS = (RequestIdReused, RequestTooOld, RequestTooNew)
MAX_REASONS = 100
"""Reasons that metrics tell apart: a context that computes reasons must not make series without end."""
OTHER = "OTHER"
_reasons: set[str] = set()

QUIET_PERIOD = 60.0
"""Seconds without a time that was set aside, after which the next one is logged again."""


def log_fold(stream: str, events: int, seconds: float) -> None:
    """Log that a long stream was folded before its next command."""
    log.info("Long stream folded", stream=stream, events=events, seconds=round(seconds, 3))


def log_unreadable_event(stream: str, version: int, error: Exception) -> None:
    """Log that an event is missing in an index, so that rules decide without it."""
    log.error("Event not indexed", stream=stream, version=version, error=repr(error))


def observe_folds(folder: StreamFolder) -> None:
    """Compute the gauges of the folds under way whenever they are read."""
    metrics.FOLDS.observe(lambda: folder.count)
    metrics.FOLD_AGE.observe(lambda: round(folder.age, 3))


def measure_batch(size: int, wait: float) -> None:
    """Record the size of a batch, and the seconds for which its oldest command has waited."""
    metrics.BATCH_SIZE.record(size)
    metrics.BATCH_WAIT.record(wait)


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
            name, reason = classify(outcome)
            kind = request.kind.name
            metrics.COMMANDS_PROCESSED.count(kind, name != FAILED, name, bound_reason(reason))
            metrics.COMMAND_DURATION.record(duration, kind)
            _log_end(request, outcome, name, reason, duration)

    return observe


def classify(outcome: Outcome | BaseException | None) -> tuple[str, str | None]:
    """Return ACCEPTED, REJECTED or FAILED, and the reason.

    A command is rejected by a rule: of its aggregate, of versions, or of request ids. Any other command
    without success has failed.
    """
    if isinstance(outcome, Accepted):
        return ACCEPTED, None
    if isinstance(outcome, Rejection):
        return REJECTED, outcome.reason
    name = REJECTED if isinstance(outcome, INVALID_REQUEST_IDS) else FAILED
    return name, REASON_OF_FAILURE.get(type(outcome), "INTERNAL")


def bound_reason(reason: str | None) -> str | None:
    """Return the reason as an attribute of metrics: OTHER beyond the first MAX_REASONS."""
    if reason is None or reason in _reasons:
        return reason
    if len(_reasons) >= MAX_REASONS:
        return OTHER
    _reasons.add(reason)
    return reason


def _log_end(
    request: Request,
    outcome: Outcome | BaseException | None,
    name: str,
    reason: str | None,
    duration: float,
) -> None:
    """Log how a command ended; `duration` in seconds, logged in milliseconds."""
    stream: str | None
    version, error = None, None
    if isinstance(outcome, Accepted):
        stream, version = next(iter(outcome.versions.items()))
    else:
        stream = find_target(request)
        error = None if isinstance(outcome, Rejection) else str(outcome) or None
    write = log.warning if name == FAILED else log.info
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


def find_target(request: Request) -> str | None:
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
            metrics.TIMES_SET_ASIDE.count(streams.stream_type(stream))
        quiet, self._last = monotonic() - self._last > QUIET_PERIOD, monotonic()
        if quiet:
            stream, lead = max(leads.items(), key=lambda item: item[1])
            log.warning("Stream time set aside", stream=stream, lead=lead.total_seconds(), streams=len(leads))
