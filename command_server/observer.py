"""Telemetry of commands: a decorator of `execute` that adds a log line and metrics."""

from time import perf_counter

from command_server.kernel.batch import Request
from command_server.kernel.group_commit import CommandResult
from command_server.kernel.outcomes import Accepted
from command_server.service import Execute
from runtime.process import logs
from runtime.telemetry import metrics

log = logs.get_logger(__name__)


def instrument(execute: Execute) -> Execute:
    """Return an `execute` that logs each command at its start and measures its duration and outcome."""

    async def observe(request: Request) -> CommandResult:
        log.info(
            "Processing command",
            commandId=request.request_id,
            commandType=request.kind.name,
            userId=request.caller,
            correlationId=request.correlation_id,
        )
        accepted = False
        try:
            result = await execute(request)
            accepted = isinstance(result.outcome, Accepted)
            return result
        finally:
            metrics.command_processed(request.kind.name, accepted, perf_counter() - request.arrived_at)

    return observe
