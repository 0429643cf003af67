"""Records who looked at whose: calls of methods whose proto says so, before their answers leave.

How it works. The read is recorded while the handler works, and the answer waits for both. Reads that come
together share an insert. None is left out: a read that cannot be recorded is not answered.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.process.start_error import StartError
from runtime.telemetry import trace_context

RETRY_AFTER = 1.0

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """A call that looks at objects."""

    caller: str
    on_behalf_of: str | None
    method: str
    """`/<package>.<Service>/<Method>`"""
    ids: list[str]
    """Of the objects; none if it looks at all of them."""
    trace_id: str | None


RecordRead = Callable[[Read], Awaitable[None]]
"""Returns once a read is recorded; raises any error if it cannot be."""


class RecordedReads:
    """Records the reads of a server.

    Args:
        record: records one; None if this process has no method whose calls are recorded.
    """

    def __init__(self, record: RecordRead | None) -> None:
        self._record = record
        self._failures = logs.RepeatedErrors(log, "Recording of reads failed")

    def intercept(self, method: Method, handler: Handler) -> Handler:
        """Record the calls of a method whose proto says so.

        Raises:
            StartError: they cannot be recorded.
        """
        fields = method.recorded_ids
        if fields is None:
            return handler
        if self._record is None or method.streams:
            raise StartError(f"{method.path}: its calls are to be recorded, which this process cannot")
        if unknown := [name for name in fields if name not in method.request.DESCRIPTOR.fields_by_name]:
            raise StartError(f"{method.path}: its requests have no field {unknown[0]}")

        async def record_and_handle(request: Any, context: Context) -> object:
            who, traceparent = caller.current(), trace_context.get_current()
            trace_id = traceparent[3:35] if traceparent else None
            ids = [str(getattr(request, name)) for name in fields]
            read = Read(who.subject, who.on_behalf_of, method.path, ids, trace_id)
            recording = asyncio.create_task(self._record_or_refuse(read))
            try:
                return await handler(request, context)
            finally:
                await recording  # its error takes the place of any answer

        return record_and_handle

    async def _record_or_refuse(self, read: Read) -> None:
        assert self._record is not None  # noqa: S101 - for mypy
        try:
            await self._record(read)
        except Exception as error:
            self._failures.report(error)
            text = "the call is not answered, because it cannot be recorded"
            raise RpcError("READ_NOT_RECORDED", text, retry_after=RETRY_AFTER) from error
        self._failures.reset()
