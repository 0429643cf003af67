"""Counts of refused calls: however many are refused, they become a bounded number of records."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

MAX_RECORDS = 200
"""Records of one interval that tell peers, methods and claims apart."""
MAX_RECORDS_PER_SOURCE = 20
"""Those of one peer or caller, so that one with many made-up tokens leaves room for the others."""
OTHER = "other"
"""Stands for all sources beyond MAX_RECORDS."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that was refused before it had any effect, or several equal ones."""

    method: str
    """`/<package>.<Service>/<Method>`; OTHER for several or an unknown one."""
    reason: str
    """For instance `SCOPE_MISSING`."""
    caller: str | None
    """The subject of the token; None for an unauthenticated call."""
    details: Mapping[str, str]
    """The metadata of the error, field path to error text for invalid fields, and a command's `request_id`.
    For an unauthenticated call: `cause`, and as far as the token claims them `key` and `issuer`. For one
    that is recorded alone: `trace_id`, if it has a trace."""
    peer: str
    """The caller's address in gRPC's notation: `ipv4:10.0.0.7:41200`; without the port for several calls."""
    calls: int = 1
    """The number of calls."""


Key = tuple[str, str, str | None, str, tuple[tuple[str, str], ...]]


class RefusedCallCounts:
    """The refused calls of one interval, counted by method, reason, caller, peer and details."""

    def __init__(self) -> None:
        self._calls: Counter[Key] = Counter()
        self._records: Counter[str] = Counter()
        self._began_at = datetime.now(UTC)

    def add(self, call: RefusedCall) -> None:
        """Count a call. Beyond the limits only its reason and its cause are kept."""
        if not self._calls:
            self._began_at = datetime.now(UTC)
        peer = strip_port(call.peer)
        key = (call.method, call.reason, call.caller, peer, tuple(sorted(call.details.items())))
        if key not in self._calls and not self._has_room(call.caller or peer):
            cause = call.details.get("cause")
            key = (OTHER, call.reason, None, OTHER, (("cause", cause),) if cause else ())
        self._calls[key] += 1

    def _has_room(self, source: str) -> bool:
        if len(self._calls) >= MAX_RECORDS or self._records[source] >= MAX_RECORDS_PER_SOURCE:
            return False
        self._records[source] += 1
        return True

    def take(self) -> list[RefusedCall]:
        """Return one record for all equal calls, and begin the next interval."""
        since = {"since": self._began_at.isoformat(timespec="seconds")}
        records = [
            RefusedCall(method, reason, caller, dict(details) | since, peer, count)
            for (method, reason, caller, peer, details), count in self._calls.items()
        ]
        self._calls.clear()
        self._records.clear()
        return records


def strip_port(peer: str) -> str:
    """Return a peer without its port, which is another one for each connection."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
