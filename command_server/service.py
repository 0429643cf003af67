"""gRPC to kernel and back: one translation for every method of every CommandService, from its descriptor."""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from time import perf_counter
from typing import Any
from uuid import UUID, uuid5

from diptych.consistency.v1.consistency_pb2 import Receipt
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import ServicerContext

from command_server.kernel.batch import Request
from command_server.kernel.context import CommandType, Context, command_types
from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Accepted, DeadlinePassed, Overloaded, Rejection, RequestIdReused
from command_server.kernel.pipeline import LONGEST_WAIT, CommandResult
from command_server.kernel.ports import StoreConflict, StoreUnavailable
from contracts import consistency_tokens
from contracts.streams import aggregate_id
from runtime.codec import instant, message_class
from runtime.grpc import caller, metadata
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service
from runtime.telemetry import tracing

Execute = Callable[[Request], Awaitable[CommandResult]]
"""The kernel's one way in; observers decorate it."""

STATUS_OF_RULE = {
    RejectionKind.RULE: StatusCode.FAILED_PRECONDITION,
    RejectionKind.NOT_FOUND: StatusCode.NOT_FOUND,
    RejectionKind.ALREADY_EXISTS: StatusCode.ALREADY_EXISTS,
}
SERVER_MADE_IDS = UUID("6f6dd3a5-1f5b-5c7e-9a43-2d7f0c1e8b64")
"""The namespace of the aggregate ids that the server makes."""
LONGEST_ID = 128
"""Characters that a correlation or causation id may have: they travel with every event."""
CORRELATION, CAUSATION = "diptych-correlation-id", "diptych-causation-id"
"""Request metadata: which conversation a command belongs to, and which message led to it."""


def command_services(context: Context, execute: Execute) -> list[Service]:
    """Return a context's CommandServices, one for each version that its protos define.

    Raises:
        TypeError: the context's protos and domain do not fit.
    """
    kinds = command_types(context)
    return [
        Service(
            service,
            {
                method.name: _handler(kinds[method.full_name], message_class(method.output_type), execute)
                for method in service.methods
            },
        )
        for service in context.services
    ]


def _handler(
    kind: CommandType, response: type[Message], execute: Execute
) -> Callable[[Any, Any], Awaitable[Message]]:
    async def handle(message: Any, context: ServicerContext[Any, Any]) -> Message:
        request = _request(kind, message, context)
        try:
            answer = await execute(request)
        except RequestIdReused as error:
            facts = {"request_id": request.request_id}
            raise RpcError("REQUEST_ID_REUSED", "this id was used for another request", facts) from error
        except DeadlinePassed as error:
            raise RpcError("DEADLINE_PASSED", "the deadline passed before the command's turn") from error
        except Overloaded as error:
            message_ = "too many commands wait; this one was not executed"
            raise RpcError("OVERLOADED", message_, retry_after=LONGEST_WAIT) from error
        except (StoreUnavailable, StoreConflict) as error:
            message_ = "whether the command took effect is unknown; repeat it with the same request id"
            raise RpcError("WRITE_MODEL_UNAVAILABLE", message_, retry_after=1) from error
        return response(receipt=_receipt(kind, answer))

    return handle


def _request(kind: CommandType, message: Any, context: ServicerContext[Any, Any]) -> Request:
    arrived, remaining = perf_counter(), context.time_remaining()
    who, given = caller.current(), _metadata()
    request_id = message.request_id.lower()  # a valid UUID, else the call would not have come so far
    content = _hash(message)
    if not getattr(message, kind.decider.key):
        setattr(message, kind.decider.key, str(uuid5(SERVER_MADE_IDS, f"{who.subject}/{request_id}")))
    has_expected = "expected_version" in kind.envelope and message.HasField("expected_version")
    return Request(
        kind=kind,
        command=kind.decode(message, who.subject),
        caller=who.subject,
        request_id=request_id,
        hash=content,
        expected_version=message.expected_version if has_expected else None,
        on_behalf_of=who.on_behalf_of,
        correlation_id=given.get(CORRELATION, request_id),
        causation_id=given.get(CAUSATION),
        traceparent=tracing.current_traceparent(),
        arrived=arrived,
        deadline=None if remaining is None else arrived + remaining,
    )


def _metadata() -> Mapping[str, str]:
    found = {key: str(value) for key, value in metadata.of_call() if key in (CORRELATION, CAUSATION)}
    if too_long := [key for key, value in found.items() if len(value) > LONGEST_ID]:
        raise RpcError("REQUEST_INVALID", f"metadata {too_long[0]} is longer than {LONGEST_ID} characters")
    return found


def _hash(message: Any) -> bytes:
    """Return the digest of a request without its id, which is how a retry is told from another request."""
    request_id, message.request_id = message.request_id, ""
    content = message.SerializeToString(deterministic=True)
    message.request_id = request_id
    return sha256(content).digest()


def _receipt(kind: CommandType, answer: CommandResult) -> Receipt:
    match answer.outcome:
        case Accepted(versions, recorded_at):
            stream, version = next(iter(versions.items()))
            token = consistency_tokens.mint(answer.incarnation, versions)
            return Receipt(
                aggregate_id=aggregate_id(stream),
                version=version,
                record_time=instant(recorded_at),  # type: ignore[arg-type] # Protobuf takes a dict
                consistency_token=token,
            )
        case Rejection(reason, RejectionKind.VERSION, details):
            raise RpcError(reason, "the stream is at another version", details)
        case Rejection(reason, rejection_kind, details):
            raise RpcError.of_rule(kind.context, reason, details, STATUS_OF_RULE[rejection_kind])
