"""The filter of requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from operations_server.names import shorten_name
from operations_server.records.event_filter import read_time
from operations_server.records.terms import ACCEPTED, REJECTED, hash_term
from runtime.grpc.rpc_error import RpcError


@dataclass(frozen=True)
class RequestFilter:
    """The fields by which requests are selected; a field without a value selects all."""

    request_id: UUID | None = None
    caller: str = ""
    outcome: str = ""
    """`ACCEPTED`, the reason of a rejection, or `REJECTED` for all of them."""
    stream: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    command: str = ""
    """A full or a short name."""
    from_time: datetime | None = None
    until_time: datetime | None = None

    @classmethod
    def of(cls, request: Any) -> "RequestFilter":
        """Return the filter of a `ListRequestsRequest`.

        Raises:
            RpcError: `REQUEST_INVALID`, the request id is not a UUID.
        """
        names = ("caller", "outcome", "stream", "correlation_id", "causation_id", "command")
        values: dict[str, Any] = {name: getattr(request, name) for name in names}
        values |= {name: read_time(request, name) for name in ("from_time", "until_time")}
        return cls(_parse_id(request.request_id), **values)

    @property
    def terms(self) -> Sequence[int]:
        """The terms that a request has that this filter selects, the most selective first."""
        pairs = [
            ("id", str(self.request_id or "")),
            ("id", self.correlation_id),
            ("id", self.causation_id),
            ("stream", self.stream),
            ("outcome", "" if self.outcome == ACCEPTED else self.outcome),
            ("caller", self.caller),
            ("command", shorten_name(self.command)),
            ("outcome", self.outcome),
        ]
        return [hash_term(kind, value) for kind, value in dict.fromkeys(pairs) if value]

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of `SCAN_TIMES` after the times."""
        return (
            self.request_id,
            self.caller or None,
            None if self.outcome == REJECTED else self.outcome or None,
            self.outcome == REJECTED,
            self.stream or None,
            self.correlation_id or None,
            self.causation_id or None,
            self.command or None,
        )


def _parse_id(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        violations = {"request_id": "must be a UUID"}
        raise RpcError("REQUEST_INVALID", "request_id: not a UUID", violations=violations) from None
