"""Finds answered commands and refused calls, each search bounded whatever the history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from operations_server.explanations.records import RequestKey, is_uuid

MAX_REQUESTS = 20
"""Requests of one id, of different callers, that are found."""
MAX_REFUSED_CALLS = 20
REFUSED_WITHIN = timedelta(days=1)
"""Refused calls are searched within this time of a request."""

_COLUMNS = "recorded_at, caller, request_id, type, outcome, stream, on_behalf_of, causation_id, duration_us"
FIND_REQUESTS = text(f"SELECT {_COLUMNS} FROM audit WHERE request_id = :id LIMIT {MAX_REQUESTS}")  # noqa: S608
FIND_REJECTED = text(f"""
SELECT {_COLUMNS} FROM audit
WHERE stream = :stream AND outcome <> 'ACCEPTED' AND recorded_at <= :until
ORDER BY recorded_at DESC LIMIT :most
""")  # noqa: S608 - composed of constants
FIND_REFUSED = text(f"""
SELECT recorded_at, caller, method, reason, peer, calls FROM refused_calls
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
    peer: str
    recorded_at: datetime


class AuditReader:
    """Searches the audit and the refused calls.

    Args:
        database: of the write model.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def find_requests(self, request_id: str) -> list[AuditedRequest]:
        """Return the answered commands with this id, of all callers."""
        if not is_uuid(request_id):
            return []
        rows = await self._read(FIND_REQUESTS, {"id": UUID(request_id)})
        return [_to_request(row) for row in rows]

    async def find_rejected(self, stream: str, until: datetime, most: int) -> list[AuditedRequest]:
        """Return the latest rejected commands whose first stream is this one."""
        rows = await self._read(FIND_REJECTED, {"stream": stream, "until": until, "most": most})
        return [_to_request(row) for row in rows]

    async def find_refused(self, request_id: str, near: datetime) -> list[RefusedCall]:
        """Return the refused calls that name a request id, of the time around another one."""
        parameters = {"id": request_id, "since": near - REFUSED_WITHIN, "until": near + REFUSED_WITHIN}
        rows = await self._read(FIND_REFUSED, parameters)
        return [
            RefusedCall(row.caller or "", row.method, row.reason, row.peer, row.recorded_at) for row in rows
        ]

    async def _read(self, query: Any, parameters: Mapping[str, Any]) -> Sequence[Any]:
        async with self._database.connect() as connection:
            return (await connection.execute(query, parameters)).all()


def _to_request(row: Any) -> AuditedRequest:
    return AuditedRequest(
        row.caller,
        str(row.request_id),
        row.type,
        row.outcome,
        row.stream,
        row.on_behalf_of,
        row.causation_id,
        row.recorded_at,
        row.duration_us / 1000,
    )
