"""`ListRefusedCalls`: callers that were refused, with reasons and numbers.

The first page sets the moment up to which calls are counted, and the following ones keep it, so that new
calls move no entry from one page to another.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.records_pb2 import RefusedCall
from grpc import StatusCode
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.rpc_error import RpcError
from runtime.postgres import autocommit

PAGE_SIZE = 50
DEFAULT_RANGE = timedelta(days=1)
QUERY = text("""
SELECT * FROM (
  SELECT reason, coalesce(details ->> 'cause', '') AS cause, coalesce(caller, '') AS caller, peer, method,
    CAST(sum(calls) AS bigint) AS calls, max(recorded_at) AS last,
    (array_agg(details ->> 'trace_id' ORDER BY recorded_at DESC)
      FILTER (WHERE details ->> 'trace_id' <> ''))[1] AS trace_id,
    (array_agg(CAST(details AS text) ORDER BY recorded_at DESC))[1] AS details,
    md5(concat_ws(chr(31), reason, coalesce(details ->> 'cause', ''), coalesce(caller, ''), peer, method))
      COLLATE "C" AS key
  FROM refused_calls
  WHERE recorded_at >= :since AND recorded_at <= :until
    AND (:caller = '' OR caller = :caller) AND (:reason = '' OR reason = :reason)
  GROUP BY 1, 2, 3, 4, 5
) g
WHERE (calls, last, key) < (:calls, :last, :key COLLATE "C")
ORDER BY calls DESC, last DESC, key DESC LIMIT :limit
""")
NOW = text("SELECT now()")
CANCELED = "57014"
"""The SQLSTATE of a statement that took longer than its time-out."""

Position = tuple[datetime, datetime, int, datetime, str]
"""The range of time of all pages; and of the last entry its number of calls, its time and its key."""
MAX_CALLS = 2**63 - 1
OTHER_FIELDS = {"cause", "since", "method", "trace_id"}
"""Details that an entry has in fields of their own, or that say nothing about one call."""


class RefusedCalls:
    """Reads the record of refused calls.

    Args:
        database: in the role of the operations server.
        tokens: mints and reads page tokens.
    """

    def __init__(self, database: AsyncEngine, tokens: RequestTokens) -> None:
        self._database = autocommit(database)
        self._tokens = tokens

    async def list_page(
        self, request: protocol.ListRefusedCallsRequest, _context: Context
    ) -> protocol.ListRefusedCallsResponse:
        list_id = f"{request.caller}\0{request.reason}\0{request.from_time.ToNanoseconds()}"
        token = self._tokens.read_page_token(request, list_id)
        size = request.page_size or PAGE_SIZE
        try:
            since, until, rows = await self._read(request, token, size + 1)
        except (SQLAlchemyError, OSError) as error:
            raise _translate(error) from error
        response = protocol.ListRefusedCallsResponse(refused_calls=map(_describe, rows[:size]))
        if len(rows) > size:
            last = rows[size - 1]
            position: Position = (since, until, last.calls, last.last, last.key)
            text = msgspec.json.encode(position).decode()
            response.next_page_token = self._tokens.mint_page_token(request, list_id, text)
        return response

    async def _read(
        self, request: protocol.ListRefusedCallsRequest, token: str, limit: int
    ) -> tuple[datetime, datetime, Sequence[Any]]:
        async with self._database.connect() as connection:
            if token:
                since, until, calls, last, key = _parse(token)
            else:
                until = await connection.scalar(NOW)
                has_start = request.HasField("from_time")
                since = request.from_time.ToDatetime(UTC) if has_start else until - DEFAULT_RANGE
                calls, last, key = MAX_CALLS, until, ""
            values = {
                "since": since,
                "until": until,
                "caller": request.caller,
                "reason": request.reason,
                "calls": calls,
                "last": last,
                "key": key,
                "limit": limit,
            }
            return since, until, (await connection.execute(QUERY, values)).all()


def create_handlers(refused_calls: RefusedCalls) -> Mapping[str, Handler]:
    """Return the handlers by method."""
    return {"ListRefusedCalls": refused_calls.list_page}


def _parse(token: str) -> Position:
    try:
        position: Position = msgspec.json.decode(token, type=Position)
    except msgspec.MsgspecError:
        raise invalid_page_token() from None
    return position


def _translate(error: Exception) -> RpcError:
    if getattr(getattr(error, "orig", None), "sqlstate", None) == CANCELED:
        metadata = {"field": "from_time"}
        return RpcError.of_rule(
            "operations", "TIME_RANGE_TOO_LARGE", metadata, StatusCode.FAILED_PRECONDITION
        )
    text = "the record of refused calls cannot be read from PostgreSQL"
    return RpcError("WRITE_MODEL_UNAVAILABLE", text, retry_after=1.0)


def _describe(row: Any) -> RefusedCall:
    message = RefusedCall(
        reason=row.reason,
        cause=row.cause,
        caller=row.caller,
        peer=row.peer,
        method=row.method,
        calls=row.calls,
        trace_id=row.trace_id,
        details={name: str(value) for name, value in decode_details(row.details, OTHER_FIELDS).items()},
    )
    message.last_time.FromDatetime(row.last)
    return message


def decode_details(document: str, without: Collection[str]) -> Mapping[str, Any]:
    """Return the details of a refused call but for some of them; none if they cannot be decoded."""
    try:
        details = msgspec.json.decode(document, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
    return {name: value for name, value in details.items() if name not in without}
