"""Calls that went no further are on record too: unauthenticated, denied and invalid ones."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from grpc import StatusCode

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

log = logs.get_logger(__name__)

_ON_RECORD = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT}
_REUSED = "REQUEST_ID_REUSED"
"""On record too: the request id has its one row already, which is another request's."""
_EXPIRED = "TOKEN_EXPIRED"
"""Not on record: the call was allowed, and has lasted until it no longer was."""
_PATIENCE = 2.0
"""Seconds that an answer waits for its record."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that was refused before it could do anything."""

    method: str
    """`/<package>.<Service>/<Method>`"""
    reason: str
    """For instance `SCOPE_MISSING`."""
    caller: str | None
    """The subject of the token, None where nobody could be made out."""
    details: Mapping[str, str]
    """The refusal's metadata, or the fields that are invalid and why."""
    peer: str
    """Where the call came from, as gRPC writes it: `ipv4:10.0.0.7:41200`."""


RecordRefusedCall = Callable[[RefusedCall], Awaitable[None]]


async def log_refused_call(call: RefusedCall) -> None:
    """Record an attempt as a line of the log, for a server that has no better place."""
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

    A record that fails, or takes too long, is logged; the call's answer stays the same.
    """

    def recording(method: Method, handler: Handler) -> Handler:
        async def recorded(request: object, context: Context) -> object:
            try:
                return await handler(request, context)
            except RpcError as error:
                if error.reason == _REUSED or (error.code in _ON_RECORD and error.reason != _EXPIRED):
                    await _keep(record_refused_call, _refused_call(method, error, context))
                raise

        return recorded

    return recording


def _refused_call(method: Method, error: RpcError, context: Context) -> RefusedCall:
    who = caller.known()
    details = {**error.metadata, **error.violations}
    return RefusedCall(method.path, error.reason, who.subject if who else None, details, context.peer())


async def _keep(record_refused_call: RecordRefusedCall, call: RefusedCall) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await record_refused_call(call)
    except Exception:
        log.exception("A refused call could not be recorded", method=call.method, reason=call.reason)
