"""Finds answered commands and refused calls, each search bounded whatever the history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from diptych.operations.v1.records_pb2 import Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from operations_server.explanations.record_reader import RequestKey, is_uuid
from operations_server.records.request_filter import RequestFilter
from operations_server.records.request_reader import RequestReader
from operations_server.records.terms import REJECTED
from operations_server.refused_calls import decode_details

MAX_REQUESTS = 20
"""Requests of one id, of different callers, that are found."""
SEARCH_TIME = 1.0
"""Seconds that a search takes, and one more page; it ends sooner where the index covers the audit."""
MARGIN = timedelta(seconds=1)
"""A command is recorded at the time of its events; the margin covers times that are not exact."""
MAX_REFUSED_CALLS = 20
REFUSED_WITHIN = timedelta(days=1)
"""Refused calls are searched within this time of a request."""
OTHER_FIELDS = {"request_id", "trace_id"}
"""Details of a refused call that are no reason for its refusal."""

# Not `->>`, which fails for details with a lone surrogate.
FIND_REFUSED = text(f"""
SELECT recorded_at, caller, method, reason, peer, details::text AS details FROM refused_calls
WHERE recorded_at > :since AND recorded_at <= :until AND strpos(details::text, :id) > 0
ORDER BY recorded_at LIMIT {MAX_REFUSED_CALLS}
""")  # noqa: S608 - composed of constants


@dataclass(frozen=True, slots=True)
class AuditedRequest:
    """An answered command, as the audit has it."""

    caller: str
    request_id: str
    command: str
    outcome: str
    stream: str
    on_behalf_of: str | None
    causation_id: str | None
    recorded_at: datetime
    milliseconds: float
    """From the arrival to the decision."""

    @property
    def key(self) -> RequestKey:
        return self.caller, self.request_id


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that was refused before it was decided."""

    caller: str
    method: str
    reason: str
    details: Mapping[str, Any]
    """The reasons for its refusal."""
    peer: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class FoundRequests:
    """Answered commands, the latest first."""

    requests: Sequence[AuditedRequest]
    is_complete: bool
    """Whether the whole audit was searched."""


class AuditReader:
    """Searches the audit and the refused calls.

    Args:
        database: of the write model.
        requests: reads the audit by its index.
    """

    def __init__(self, database: AsyncEngine, requests: RequestReader) -> None:
        self._database = database
        self._requests = requests

    async def find_requests(self, request_id: str, until: datetime | None = None) -> FoundRequests:
        """Return the answered commands with this id, of all callers.

        Args:
            request_id: the id.
            until: only those of this time or earlier; None for all.
        """
        if not is_uuid(request_id):
            return FoundRequests((), is_complete=True)
        after = None if until is None else until + MARGIN
        return await self._search(RequestFilter(UUID(request_id), until_time=after), MAX_REQUESTS)

    async def find_request(self, key: RequestKey, at: datetime) -> AuditedRequest | None:
        """Return a command that was recorded at a time; None if the audit does not have it any more."""
        caller, request_id = key
        if not is_uuid(request_id):
            return None
        filter_ = RequestFilter(UUID(request_id), from_time=at - MARGIN, until_time=at + MARGIN)
        found = await self._search(filter_, MAX_REQUESTS)
        return next((each for each in found.requests if each.caller == caller), None)

    async def find_rejected(self, stream: str, until: datetime, most: int) -> FoundRequests:
        """Return the latest rejected commands whose first stream is this one."""
        filter_ = RequestFilter(outcome=REJECTED, stream=stream, until_time=until + timedelta(microseconds=1))
        return await self._search(filter_, most)

    async def _search(self, filter_: RequestFilter, most: int) -> FoundRequests:
        found, position, end = list[AuditedRequest](), None, monotonic() + SEARCH_TIME
        while True:
            page = await self._requests.read_page(filter_, position, most - len(found))
            found += map(_to_request, page.requests)
            position = page.position
            if position is None or len(found) >= most:
                return FoundRequests(found, is_complete=position is None)
            if monotonic() > end:
                return FoundRequests(found, is_complete=False)

    async def find_refused(self, request_id: str, near: datetime) -> list[RefusedCall]:
        """Return the refused calls that name a request id, of the time around another one."""
        parameters = {"id": request_id, "since": near - REFUSED_WITHIN, "until": near + REFUSED_WITHIN}
        async with self._database.connect() as connection:
            rows = (await connection.execute(FIND_REFUSED, parameters)).all()
        return [
            RefusedCall(
                row.caller or "",
                row.method,
                row.reason,
                decode_details(row.details, OTHER_FIELDS),
                row.peer,
                row.recorded_at,
            )
            for row in rows
        ]


def _to_request(request: Request) -> AuditedRequest:
    return AuditedRequest(
        request.caller,
        request.request_id,
        request.command,
        request.outcome,
        request.stream,
        request.on_behalf_of or None,
        request.causation_id or None,
        request.record_time.ToDatetime(UTC),
        request.duration.ToMicroseconds() / 1000,
    )
