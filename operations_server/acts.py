"""The record of operators' acts: who did what, to what, why, and with what outcome.

How it works. An act is recorded before it is done, so that every act is on record, and its outcome after it.
Both run in a task of their own, which ends even if the caller leaves. So does the act, unless it learns
before it changes anything that its caller has left (`CallerLeft`). An outcome that cannot be recorded is
logged, and stays null in the record.
"""

import asyncio
import json
from collections.abc import Callable
from time import monotonic
from typing import Any

from google.protobuf.json_format import MessageToDict
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.telemetry import trace_context

DONE = "DONE"
BEGIN = text("""
INSERT INTO operator_acts (subject, on_behalf_of, act, target, request, reason, trace_id)
VALUES (:subject, :on_behalf_of, :act, :target, CAST(:request AS jsonb), :reason, :trace_id) RETURNING number
""")
# The row of its own is sealed, and shows an edited outcome.
END = text("""
WITH ended AS (
  UPDATE operator_acts SET outcome = :outcome, duration_us = :duration WHERE number = :number
  RETURNING number, outcome, duration_us
)
INSERT INTO operator_act_outcomes (act, outcome, duration_us) SELECT number, outcome, duration_us FROM ended
""")

log = logs.get_logger(__name__)


class CallerLeft(Exception):
    """An act was not done, because its caller has left."""


class OperatorActs:
    """Records acts in PostgreSQL.

    Args:
        database: in the role of the operations server.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database
        self._running: set[asyncio.Task[Any]] = set()

    def record(self, act: str, handler: Handler, describe: Callable[[Any], str]) -> Handler:
        """Return a handler that records each call of another one.

        Args:
            act: its name, for instance `RetrySaga`.
            handler: does the act; its requests have a `reason`.
            describe: returns the target of a request, for people.
        """

        async def handle(request: Any, context: Context) -> Any:
            task = asyncio.create_task(self._run(act, handler, describe(request), request, context))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                task.add_done_callback(_report_unseen_error)
                raise

        return handle

    async def wait_ended(self) -> None:
        """Wait until the acts that have begun have ended."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(self, act: str, handler: Handler, target: str, request: Any, context: Context) -> Any:
        operator = caller.current()
        fields = {
            "subject": operator.subject,
            "on_behalf_of": operator.on_behalf_of,
            "act": act,
            "target": target,
            "reason": request.reason,
            "trace_id": read_trace_id(),
        }
        number, start = await self._begin(fields, request), monotonic()
        outcome = "INTERNAL"
        try:
            response = await handler(request, context)
            outcome = DONE
        except RpcError as error:
            outcome = error.reason
            raise
        except CallerLeft:
            outcome = "CALLER_LEFT"
            raise
        finally:
            await self._end(number, outcome, monotonic() - start, fields)
        return response

    async def _begin(self, fields: dict[str, str | None], request: Any) -> int:
        document = json.dumps(MessageToDict(request, preserving_proto_field_name=True))
        try:
            async with self._database.begin() as connection:
                return int(await connection.scalar(BEGIN, {**fields, "request": document}) or 0)
        except (SQLAlchemyError, OSError) as error:
            text = "the act was not done, because it cannot be recorded"
            raise RpcError("WRITE_MODEL_UNAVAILABLE", text, retry_after=1.0) from error

    async def _end(self, number: int, outcome: str, seconds: float, fields: dict[str, str | None]) -> None:
        log.info("Operator acted", **fields, outcome=outcome)
        values = {"number": number, "outcome": outcome, "duration": round(seconds * 1e6)}
        try:
            async with self._database.begin() as connection:
                await connection.execute(END, values)
        except (SQLAlchemyError, OSError) as error:
            log.error("Outcome of an act not recorded", number=number, outcome=outcome, error=repr(error))


def _report_unseen_error(task: asyncio.Task[Any]) -> None:
    """Log the error of an act whose caller has left, unless its outcome is the error's reason."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RpcError | CallerLeft):
        log.error("Act failed after its caller left", error=repr(error), exc_info=error)


def read_trace_id() -> str | None:
    """Return the trace id of the current call, sampled or not; None without one."""
    traceparent = trace_context.get_current()
    return traceparent[3:35] if traceparent else None
