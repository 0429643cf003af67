"""The audit record of refused calls in PostgreSQL, for the servers that have it."""

import asyncio
import json

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.grpc.refused_call_counts import RefusedCall

MAX_PENDING = 1_000
"""Records that may wait for their insert. Further ones are only logged."""
INSERT = text(
    "INSERT INTO refused_calls (method, reason, caller, details, peer, calls)"
    " VALUES (:method, :reason, :caller, CAST(:details AS json), :peer, :calls)"
)


class RefusedCallTable:
    """Records refused calls in batches: those that arrive during an insert share the next one.

    Args:
        engine: of a role that may INSERT into `refused_calls`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._pending: list[tuple[RefusedCall, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, call: RefusedCall) -> None:
        """Return once the call is recorded.

        Raises:
            BufferError: too many records are pending.
            Exception: the insert failed.
        """
        if len(self._pending) >= MAX_PENDING:
            raise BufferError(f"{MAX_PENDING} refused calls are pending")
        completion: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((call, completion))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await completion

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                async with self._engine.begin() as connection:
                    await connection.execute(INSERT, [_build_row(call) for call, _ in batch])
            except Exception as error:  # `record` raises it for each call
                for _, completion in batch:
                    if not completion.done():
                        completion.set_exception(error)
            for _, completion in batch:
                if not completion.done():
                    completion.set_result(None)


def _build_row(call: RefusedCall) -> dict[str, object]:
    return {
        "method": call.method,
        "reason": call.reason,
        "caller": call.caller,
        "details": json.dumps(dict(call.details)),
        "peer": call.peer,
        "calls": call.calls,
    }
