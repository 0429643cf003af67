"""Calls the services that steps are for, and tells an answer from a call of which nothing is known."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2

from process_manager.due_work import DueStep
from runtime.codec import message_class
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

DEADLINE = 5.0
"""Seconds that a call may take."""
DEFINITE = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""The statuses that are an answer, where they say so themselves: the rest may be over on another try, or
once somebody has given this process what it lacks, a scope for instance."""
OPTIONS = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 5_000)]


@dataclass(frozen=True, slots=True)
class StepReply:
    """What a call was answered with: a response, or the reason of a refusal."""

    response: Any = None
    reason: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class NoReply(Exception):
    """Whether the call took effect is unknown."""


class StepClient:
    """Channels to the command and query servers.

    Args:
        settings: where they are, and where this process's token lies.
    """

    def __init__(self, settings: Settings) -> None:
        self._commands, self._queries = settings.command_address, settings.query_address
        self._elsewhere = _targets(settings.command_targets)
        self._token = Path(settings.process_manager_token)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def call(self, step: DueStep, traceparent: str | None) -> StepReply:
        """Send a step and return its answer.

        Raises:
            NoAnswer: there was none.
        """
        service, _, method = step.method[1:].partition("/")
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
        call: Any = self._channel(service).unary_unary(
            step.method, response_deserializer=message_class(found.output_type).FromString
        )
        try:
            metadata = self._metadata(step, traceparent)
            return StepReply(await call(step.request, timeout=DEADLINE, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            info = _info(error)
            if error.code() in DEFINITE and info is not None and info.domain.endswith("diptych"):
                return StepReply(reason=info.reason, details=dict(info.metadata))
            raise NoReply(f"{error.code().name}: {error.details()}") from error
        except OSError as error:
            raise NoReply(f"there is no token: {error}") from error

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    def _channel(self, service: str) -> grpc.aio.Channel:
        _, context, _, name = service.split(".")
        address = self._queries if name == "QueryService" else self._elsewhere.get(context, self._commands)
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, OPTIONS)
        return self._channels[address]

    def _metadata(self, step: DueStep, traceparent: str | None) -> tuple[tuple[str, str], ...]:
        found = {
            "authorization": f"Bearer {self._token.read_text().strip()}",  # it may have been renewed
            "diptych-correlation-id": step.correlation_id,
            "diptych-causation-id": f"{step.saga}/{step.id}"[:128],
            "traceparent": traceparent,
        }
        return tuple((key, value) for key, value in found.items() if value)


def _targets(text: str) -> dict[str, str]:
    """Return the addresses in `context=host:port,…` by context."""
    targets = dict(part.strip().partition("=")[::2] for part in text.split(",") if part.strip())
    if wrong := [context for context, address in targets.items() if ":" not in address]:
        raise StartError(f"DIPTYCH_COMMAND_TARGETS: {wrong[0]} has no address like inventory=host:port")
    return targets


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info
    return None
