"""The gRPC edge of commands: translates RPCs to kernel requests, and results to receipts or errors.

One handler serves every method of every CommandService. It is built from the method's descriptor.
"""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha1, sha256
from time import perf_counter
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import StatusCode

from command_server.kernel.batch import Request, StreamLocked
from command_server.kernel.context import CommandType, Context, command_types
from command_server.kernel.decider import RejectionKind
from command_server.kernel.event_lookups import EventLookups
from command_server.kernel.outcomes import (
    Accepted,
    CommandResult,
    DeadlinePassed,
    OutcomePending,
    Overloaded,
    Rejection,
    RequestIdReused,
)
from command_server.kernel.ports import StoreConflict, StoreFailed, StoreFull, StoreLocked, StoreUnavailable
from command_server.kernel.request_ages import RequestTooNew, RequestTooOld
from contracts.consistency_tokens import ConsistencyTokens
from contracts.signed_tokens import GetKeyRing
from contracts.streams import aggregate_id
from runtime.codec import encode_timestamp, message_class
from runtime.grpc import caller, metadata
from runtime.grpc.access import AccessRule, rule_of
from runtime.grpc.method import Context as CallContext
from runtime.grpc.metrics import CALLS_SHED
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service
from runtime.process.start_error import StartError
from runtime.telemetry import trace_context

Execute = Callable[[Request], Awaitable[CommandResult]]
"""The kernel's entry point. Observers decorate it."""

STATUS_OF_REJECTION = {
    RejectionKind.RULE: StatusCode.FAILED_PRECONDITION,
    RejectionKind.NOT_FOUND: StatusCode.NOT_FOUND,
    RejectionKind.ALREADY_EXISTS: StatusCode.ALREADY_EXISTS,
}
REASON_OF_FAILURE: Mapping[type, str] = {
    RequestIdReused: "REQUEST_ID_REUSED",
    RequestTooOld: "REQUEST_TOO_OLD",
    RequestTooNew: "REQUEST_INVALID",
    DeadlinePassed: "DEADLINE_PASSED",
    Overloaded: "OVERLOADED",
    OutcomePending: "OUTCOME_PENDING",
    StoreFull: "STORAGE_FULL",
    StoreLocked: "WRITE_MODEL_LOCKED",
    StreamLocked: "WRITE_MODEL_LOCKED",
    StoreUnavailable: "WRITE_MODEL_UNAVAILABLE",
    StoreFailed: "WRITE_MODEL_UNAVAILABLE",
    StoreConflict: "WRITE_MODEL_UNAVAILABLE",
    CancelledError: "CANCELLED",
}
"""The reasons of commands without an outcome, as `_build_handler` answers them; for any other `INTERNAL`."""
STORAGE_FULL_PAUSE = 5.0
"""Seconds after which a caller may repeat a command that a full database has refused."""
SERVER_ID_NAMESPACE = UUID("6f6dd3a5-1f5b-5c7e-9a43-2d7f0c1e8b64")
"""UUID namespace of generated aggregate ids."""
_NAMESPACE_DIGEST = sha1(SERVER_ID_NAMESPACE.bytes, usedforsecurity=False)


def look_up_first(lookups: EventLookups, execute: Execute) -> Execute:
    """Return an `execute` that gives each command the earlier events that it needs."""

    async def complete_and_execute(request: Request) -> CommandResult:
        return await execute(await lookups.complete(request))

    return complete_and_execute


def command_services(
    context: Context, execute: Execute, tokens: ConsistencyTokens, get_ring: GetKeyRing
) -> list[Service]:
    """Return one gRPC service per version of the context's CommandService.

    Args:
        context: the context.
        execute: executes its commands.
        tokens: mints consistency tokens.
        get_ring: returns the keys for the tokens and unique values in commands.

    Raises:
        TypeError: a proto and the domain differ, see `command_types`.
        StartError: a method has no access rule, or an owner that nothing has.
    """
    kinds = command_types(context)
    return [
        Service(
            service,
            {
                method.name: _build_handler(
                    kinds[method.full_name],
                    _find_rule(kinds[method.full_name], method),
                    message_class(method.output_type),
                    execute,
                    tokens,
                    get_ring,
                )
                for method in service.methods
            },
            compares_owners=[method.name for method in service.methods],
        )
        for service in context.services
    ]


def _find_rule(kind: CommandType, method: MethodDescriptor) -> AccessRule:
    """Return the access rule of a command.

    Raises:
        StartError: it has none, or names an owner that neither the request nor an aggregate's state has.
    """
    rule = rule_of(method)
    owners = {aggregate.owner for aggregate in kind.decider.aggregates}
    if rule.owner and not rule.is_in_request and rule.owner not in owners:
        raise StartError(f"{method.full_name}: no aggregate of its decider has the owner {rule.owner}")
    return rule


def _build_handler(
    kind: CommandType,
    rule: AccessRule,
    response: type[Message],
    execute: Execute,
    tokens: ConsistencyTokens,
    get_ring: GetKeyRing,
) -> Callable[[Any, Any], Awaitable[Message]]:
    complete = kind.build_completion(get_ring)

    async def handle(message: Any, context: CallContext) -> Message:
        request = _read_request(kind, rule, message, context, complete)
        try:
            result = await execute(request)
        except RequestIdReused as error:
            details = {"request_id": request.request_id}
            raise RpcError("REQUEST_ID_REUSED", "request_id: used for another request", details) from error
        except RequestTooOld as error:
            details = {"request_id": request.request_id, "kept_since": error.kept_since.isoformat()}
            text = "request_id: older than the answers that are kept; it may have been executed before"
            raise RpcError("REQUEST_TOO_OLD", text, details) from error
        except RequestTooNew as error:
            violations = {"request_id": "carries a time more than a day ahead of the server's"}
            raise RpcError(
                "REQUEST_INVALID", "request_id: its time is ahead", violations=violations
            ) from error
        except DeadlinePassed as error:
            text = "the deadline passed while the command was queued; it was not executed"
            raise RpcError("DEADLINE_PASSED", text) from error
        except Overloaded as error:
            CALLS_SHED.count("commit time")
            text = "the command would have waited too long; it was not executed"
            raise RpcError("OVERLOADED", text, retry_after=error.retry_after) from error
        except OutcomePending as error:
            text = "the commit takes longer than the deadline; retry with the same request_id for the outcome"
            raise RpcError("OUTCOME_PENDING", text, retry_after=error.retry_after) from error
        except StoreFull as error:
            text = "the database has no space left; the command was not executed"
            raise RpcError("STORAGE_FULL", text, retry_after=STORAGE_FULL_PAUSE) from error
        except StoreLocked as error:
            text = "another transaction holds a lock that the command needs; it was not executed"
            raise RpcError("WRITE_MODEL_LOCKED", text, retry_after=error.retry_after) from error
        except (StoreUnavailable, StoreFailed, StoreConflict) as error:
            text = "the command may have taken effect; retry with the same request_id"
            cause = getattr(error, "cause", "")
            facts = {"cause": cause} if cause else None
            raise RpcError("WRITE_MODEL_UNAVAILABLE", text, facts, retry_after=error.retry_after) from error
        return response(receipt=_build_receipt(kind, result, tokens))

    return handle


def _read_request(
    kind: CommandType, rule: AccessRule, message: Any, context: CallContext, complete: Callable[[Any], Any]
) -> Request:
    arrived_at, remaining = perf_counter(), context.time_remaining()
    identity, (ids, ignored) = caller.current(), metadata.read_ids()
    if ignored:
        context.set_trailing_metadata(((metadata.IGNORED, ",".join(ignored)),))
    request_id = message.request_id.lower()  # the validation interceptor has checked that it is a UUID
    content = _serialize_content(message)  # before the id is generated: a retry leaves it empty again
    if not getattr(message, kind.decider.key):
        setattr(message, kind.decider.key, generate_id(identity.subject, request_id))
    command = kind.decode(message, identity.subject, identity.scopes, identity.persons)
    has_expected = "expected_version" in kind.request_fields and message.HasField("expected_version")
    return Request(
        kind=kind,
        command=complete(command),
        caller=identity.subject,
        request_id=request_id,
        digest=_digest(content, identity.on_behalf_of),
        expected_version=message.expected_version if has_expected else None,
        on_behalf_of=identity.on_behalf_of,
        correlation_id=ids.get(metadata.CORRELATION_ID, request_id),
        causation_id=ids.get(metadata.CAUSATION_ID),
        traceparent=trace_context.get_current(),
        arrived_at=arrived_at,
        deadline=None if remaining is None else arrived_at + remaining,
        size=len(content),
        owners=None if rule.is_in_request else rule.find_owners(identity),
    )


def generate_id(subject: str, request_id: str) -> str:
    """Return the aggregate id of a request without one; a retry has the same, and finds its stream by it.

    It is `uuid5` of SERVER_ID_NAMESPACE, caller and request id, in a third of the time of that function.
    """
    digest = _NAMESPACE_DIGEST.copy()
    digest.update(f"{subject}/{request_id}".encode())
    digits = digest.hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def _digest(content: bytes, on_behalf_of: str | None) -> bytes:
    """Return the digest of a request's content, and of the person for whom its caller acts.

    So no answer for one person is one for another under the same request id. No content begins with a zero.
    """
    return sha256(
        content if on_behalf_of is None else b"\0%b\0%b" % (on_behalf_of.encode(), content)
    ).digest()


def _serialize_content(message: Any) -> bytes:
    """Return a request without its id. The digest of it distinguishes a retry from a reused id."""
    request_id, message.request_id = message.request_id, ""
    content: bytes = message.SerializeToString(deterministic=True)
    message.request_id = request_id
    return content


def _build_receipt(kind: CommandType, result: CommandResult, tokens: ConsistencyTokens) -> dict[str, Any]:
    """Return the fields of a Receipt; from these Protobuf builds a response faster than from a message."""
    match result.outcome:
        case Accepted(versions, recorded_at):
            stream, version = next(iter(versions.items()))
            token = tokens.mint(result.incarnation, versions)
            return {
                "aggregate_id": aggregate_id(stream),
                "version": version,
                "record_time": encode_timestamp(recorded_at),
                "consistency_token": token,
            }
        case Rejection(reason, RejectionKind.VERSION, details):
            raise RpcError(reason, "expected_version: the stream is at another version", details)
        case Rejection(reason, rejection_kind, details):
            raise RpcError.of_rule(kind.context, reason, details, STATUS_OF_REJECTION[rejection_kind])
