"""An audit record of refused calls: unauthenticated, denied and invalid ones."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from grpc import StatusCode

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error

log = logs.get_logger(__name__)

_RECORDED_STATUSES = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT}
_RECORDED_REASONS = {"REQUEST_ID_REUSED", "REQUEST_TOO_OLD"}
"""Recorded although their status is not in the set: they have no row in the audit. That of a reused request
id belongs to the other request."""
_EXPIRED_REASON = "TOKEN_EXPIRED"
"""Not recorded: the call was allowed at its start, and its token expired while it ran."""
_TIMEOUT = 2.0
"""Seconds that the response to a refused call waits for its record."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that was refused before it had any effect."""

    method: str
    """`/<package>.<Service>/<Method>`"""
    reason: str
    """For instance `SCOPE_MISSING`."""
    caller: str | None
    """The subject of the token; None for an unauthenticated call."""
    details: Mapping[str, str]
    """The metadata of the error, and field path to error text for invalid fields."""
    peer: str
    """The caller's address in gRPC's notation: `ipv4:10.0.0.7:41200`."""


RecordRefusedCall = Callable[[RefusedCall], Awaitable[None]]


async def log_refused_call(call: RefusedCall) -> None:
    """Record a call in the log, for servers without a table of refused calls."""
    log.warning(
        "Call refused",
        method=call.method,
        reason=call.reason,
        userId=call.caller,
        details=call.details,
        peer=call.peer,
    )


def record(record_refused_call: RecordRefusedCall) -> Interceptor:
    """Return an interceptor that records refused calls before they are answered.

    A recording that fails or takes too long is logged and does not change the answer.
    """

    def wrap(method: Method, handler: Handler) -> Handler:
        async def record_if_refused(request: object, context: Context) -> object:
            try:
                return await handler(request, context)
            except RpcError as error:
                if error.reason in _RECORDED_REASONS or (
                    error.code in _RECORDED_STATUSES and error.reason != _EXPIRED_REASON
                ):
                    await _record_or_log(record_refused_call, _describe(method, error, context))
                raise

        return record_if_refused

    return wrap


def _describe(method: Method, error: RpcError, context: Context) -> RefusedCall:
    current_caller = caller.current_or_none()
    subject = current_caller.subject if current_caller else None
    details = {**error.metadata, **error.violations}
    return RefusedCall(method.path, error.reason, subject, details, context.peer())


async def _record_or_log(record_refused_call: RecordRefusedCall, call: RefusedCall) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT):
            await record_refused_call(call)
    except Exception as error:
        fields = {"method": call.method, "reason": call.reason, "userId": call.caller, "peer": call.peer}
        log.error("Recording of refused call failed", error=describe_error(error), **fields)
