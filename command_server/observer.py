"""What operators see of commands: a log line and metrics, by decorating the kernel's way in."""

from time import perf_counter

from command_server.kernel.batch import Request
from command_server.kernel.outcomes import Accepted
from command_server.kernel.pipeline import CommandResult
from command_server.service import Execute
from runtime.process import logs
from runtime.telemetry import metrics

log = logs.get_logger(__name__)


def observed(execute: Execute) -> Execute:
    """Return `execute` with telemetry round it."""

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
            answer = await execute(request)
            accepted = isinstance(answer.outcome, Accepted)
            return answer
        finally:
            metrics.command_processed(request.kind.name, accepted, perf_counter() - request.arrived)

    return observe
