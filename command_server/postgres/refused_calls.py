"""The audit record of calls that the gRPC edge refused: unauthenticated, denied or invalid."""

import asyncio

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.postgres.schema import REFUSED_CALLS
from runtime.grpc.refused_calls import RefusedCall

MAX_PENDING = 1_000
"""Refused calls that may wait for their insert. Further ones are only logged."""


class RefusedCallLog:
    """Records refused calls in batches: calls that arrive during an insert share the next one."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._pending: list[tuple[RefusedCall, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, call: RefusedCall) -> None:
        """Return once the call is recorded.

        Raises:
            BufferError: too many calls are pending.
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
                    await connection.execute(insert(REFUSED_CALLS), [_build_row(call) for call, _ in batch])
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
        "details": dict(call.details),
        "peer": call.peer,
    }
