"""An audit record of refused calls: unauthenticated, denied and invalid ones, and those of unknown methods.

How it works. A refused call of an authenticated caller is recorded alone, before it is answered, as long as
there are few. Unauthenticated calls, and those beyond that, are counted: the counts are recorded a second
after the first call and then every minute, one record for equal calls (`refused_call_counts`). So a flood
costs a bounded number of records, and neither the database nor the log is slower for it. A peer that makes
many unauthenticated calls gets its answers late (`Pace`): most floods wait for answers, and end there.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError
from grpc import StatusCode

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.metrics import CALLS_REFUSED
from runtime.grpc.refused_call_counts import OTHER, RefusedCall, RefusedCallCounts, strip_port
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.unauthenticated import Unauthenticated
from runtime.grpc.validation import MAX_REQUEST_BYTES
from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error
from runtime.telemetry import trace_context

log = logs.get_logger(__name__)

_RECORDED_STATUSES = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT}
_RECORDED_REASONS = {"REQUEST_ID_REUSED", "REQUEST_TOO_OLD"}
"""Recorded although their status is not in the set: they have no row in the audit. That of a reused request
id belongs to the other request."""
_EXPIRED_REASON = "TOKEN_EXPIRED"
"""Not recorded: the call was allowed at its start, and its token expired while it ran."""
_TIMEOUT = 2.0
"""Seconds that the response to a refused call, or the stop of the server, waits for a record."""
FIRST_INTERVAL, INTERVAL = 1.0, 60.0
"""Seconds until the first counts of a flood are recorded, and between the later ones."""
MAX_SINGLE_RECORDS, MAX_SINGLE_RECORDS_OF_CALLER = 600, 60
"""Calls in INTERVAL that are recorded alone: of all callers, and of one."""
PEER_PACE, PACE = 20, 200
"""Unauthenticated calls in a second that are answered at once: of one peer, and of all."""
DELAY = 1.0
"""Seconds by which the answers to the others are late."""
MAX_DELAYED = 1_000
"""Calls whose answers may wait; the others are answered at once, to bound the memory."""

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
        calls=call.calls,
    )


class RefusedCalls:
    """The refused calls of a server.

    A recording that fails or takes too long is logged and does not change the answer.

    Args:
        record: records one call, or several equal ones.
        intervals: FIRST_INTERVAL and INTERVAL.
    """

    def __init__(
        self, record: RecordRefusedCall, intervals: tuple[float, float] = (FIRST_INTERVAL, INTERVAL)
    ) -> None:
        self._record = record
        self._intervals = intervals
        self._counts = RefusedCallCounts()
        self._singles: Counter[str] = Counter()
        self._singles_since = 0.0
        self._writer: asyncio.Task[None] | None = None
        self._pace = Pace()

    def intercept(self, method: Method, handler: Handler) -> Handler:
        """Record the refused calls of a method before they are answered."""

        async def record_if_refused(request: object, context: Context) -> object:
            try:
                return await handler(request, context)
            except RpcError as error:
                if error.reason in _RECORDED_REASONS or (
                    error.code in _RECORDED_STATUSES and error.reason != _EXPIRED_REASON
                ):
                    read_id = partial(read_request_id, method, request)
                    await self._add(_describe(method, error, context), read_id)
                raise

        return record_if_refused

    async def add_unknown(self, context: Context) -> None:
        """Count a call of an unknown method, which anybody can make, before it is answered."""
        await self._add(RefusedCall(OTHER, "METHOD_UNKNOWN", None, {}, context.peer()))

    async def _add(self, call: RefusedCall, read_id: Callable[[], str] = str) -> None:
        CALLS_REFUSED.count(call.reason)
        if call.caller is None:
            self._count(call)
            await self._pace.wait(strip_port(call.peer))
        elif self._may_record_alone(call.caller):
            if request_id := read_id():
                call = replace(call, details={"request_id": request_id, **call.details})
            await self._record_or_log(_add_trace(call))
        else:  # callers can make up details without end, and would share no record with themselves
            self._count(replace(call, details={}))

    def _may_record_alone(self, subject: str) -> bool:
        if monotonic() - self._singles_since > self._intervals[1]:
            self._singles_since = monotonic()
            self._singles.clear()
        if (
            self._singles.total() >= MAX_SINGLE_RECORDS
            or self._singles[subject] >= MAX_SINGLE_RECORDS_OF_CALLER
        ):
            return False
        self._singles[subject] += 1
        return True

    def _count(self, call: RefusedCall) -> None:
        self._counts.add(call)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_until_quiet())

    async def _write_until_quiet(self) -> None:
        """Record the counts at each interval, until one has none."""
        interval, later_interval = self._intervals
        while True:
            await asyncio.sleep(interval)
            interval = later_interval
            if not await self._write():
                return

    async def _write(self) -> bool:
        records = self._counts.take()
        await asyncio.gather(*map(self._record_or_log, records))
        return bool(records)

    async def close(self) -> None:
        """Record what has been counted."""
        if self._writer is not None:
            self._writer.cancel()
        await self._write()

    async def _record_or_log(self, call: RefusedCall) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._record(call)
        except Exception as error:
            fields = {"method": call.method, "reason": call.reason, "userId": call.caller, "peer": call.peer}
            log.error(
                "Recording of refused call failed",
                error=describe_error(error),
                details=call.details,
                calls=call.calls,
                **fields,
            )


def _add_trace(call: RefusedCall) -> RefusedCall:
    """Return a call with its trace; those that are counted have none in common."""
    if (traceparent := trace_context.get_current()) is None:
        return call
    return replace(call, details={**call.details, "trace_id": trace_context.get_trace_id(traceparent)})


class Pace:
    """Delays the answers to peers that make many unauthenticated calls in a second."""

    def __init__(self) -> None:
        self._second = 0
        self._calls: Counter[str] = Counter()
        self._delayed = 0

    async def wait(self, peer: str) -> None:
        """Return at once, or after DELAY."""
        if not self._is_exceeded(peer) or self._delayed >= MAX_DELAYED:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(DELAY)
        finally:
            self._delayed -= 1

    def _is_exceeded(self, peer: str) -> bool:
        if (second := int(monotonic())) != self._second:
            self._second = second
            self._calls.clear()
        if self._calls.total() >= PACE or self._calls[peer] >= PEER_PACE:
            return True
        self._calls[peer] += 1
        return False


def _describe(method: Method, error: RpcError, context: Context) -> RefusedCall:
    current_caller = caller.current_or_none()
    subject = current_caller.subject if current_caller else None
    details = {**error.metadata, **error.violations}
    if isinstance(error, Unauthenticated):
        claims = {"key": error.claimed_key, "issuer": error.claimed_issuer}
        details |= {name: claim for name, claim in claims.items() if claim}
    return RefusedCall(method.path, error.reason, subject, details, context.peer())


def read_request_id(method: Method, request: object) -> str:
    """Return the request id of a command that may not have been decoded; empty if it has none."""
    if "request_id" not in method.request.DESCRIPTOR.fields_by_name:
        return ""
    if isinstance(request, bytes) and len(request) > MAX_REQUEST_BYTES:
        return ""
    with suppress(DecodeError, ValueError):
        message: Any = method.request.FromString(request) if isinstance(request, bytes) else request
        return str(UUID(message.request_id))
    return ""
