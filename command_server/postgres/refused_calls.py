"""The record of calls that went no further than the edge: unauthenticated, denied or invalid."""

import asyncio

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.postgres.schema import REFUSED_CALLS
from runtime.grpc.refused_calls import RefusedCall

WAITING = 1_000
"""How many attempts may wait to be recorded; those past that are answered and only logged."""


class RefusedCallLog:
    """Records attempts, those that arrive together in one statement."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: list[tuple[RefusedCall, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, call: RefusedCall) -> None:
        """Return once an attempt is recorded.

        Raises:
            Exception: it could not be.
        """
        if len(self._waiting) >= WAITING:
            raise BufferError("too many attempts at once")
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, recorded))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await recorded

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                async with self._engine.begin() as connection:
                    await connection.execute(insert(REFUSED_CALLS), [_row(call) for call, _ in batch])
            except Exception as error:  # whoever waits learns it
                for _, recorded in batch:
                    if not recorded.done():
                        recorded.set_exception(error)
            for _, recorded in batch:
                if not recorded.done():
                    recorded.set_result(None)


def _row(call: RefusedCall) -> dict[str, object]:
    return {
        "method": call.method,
        "reason": call.reason,
        "caller": call.caller,
        "details": dict(call.details),
        "peer": call.peer,
    }
