"""Encoding and decoding of the event store's rows."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Accepted, Outcome, Rejection
from command_server.kernel.ports import Changes, RequestLookup, RequestRow, StoredRequest
from command_server.postgres import statements
from contracts.audit.digests import digest_request


def encode_changes(changes: Changes) -> list[Sequence[Any]]:
    """Return the values of `statements.WRITE`."""
    # One order on all servers: inserts of the same new keys must not wait for each other in a circle.
    requests = sorted(changes.requests, key=attrgetter("caller", "request_id"))
    outcomes = [_encode_outcome(row.outcome) for row in requests]
    digests = [_digest_request(row, outcome) for row, outcome in zip(requests, outcomes, strict=True)]
    return [
        *_transpose(changes.streams, statements.STREAM_COLUMNS),
        *_transpose(changes.events, statements.EVENT_COLUMNS),
        *_transpose(requests, statements.REQUEST_COLUMNS),
        *([row[index] for row in outcomes] for index in range(3)),
        digests,
    ]


def _transpose(rows: Sequence[object], names: Sequence[str]) -> list[Sequence[Any]]:
    return [*zip(*map(attrgetter(*names), rows), strict=True)] or [()] * len(names)


def _digest_request(row: RequestRow, outcome: tuple[str, str | None, str | None]) -> bytes:
    return digest_request(row.caller, row.request_id, row.type, row.hash, *outcome, row.recorded_at)


def _encode_outcome(outcome: Outcome) -> tuple[str, str | None, str | None]:
    """Return the values of the columns `outcome`, `rejection` and `receipt`."""
    match outcome:
        case Accepted(versions):
            return "ACCEPTED", None, msgspec.json.encode(versions).decode()
        case Rejection(reason, kind, details):
            return reason, msgspec.json.encode({"kind": kind, "details": details}).decode(), None


def decode_lookup(rows: Sequence[Any]) -> RequestLookup:
    requests = {
        (row["caller"], str(row["request_id"])): _decode_request(row) for row in rows if row["caller"]
    }
    first = rows[0]
    return RequestLookup(str(first["incarnation"]), requests, first["now"], first["kept_since"])


def _decode_request(row: Any) -> StoredRequest:
    outcome: Outcome
    if row["receipt"] is not None:
        outcome = Accepted(msgspec.json.decode(row["receipt"]), row["recorded_at"])
    else:
        rejection = msgspec.json.decode(row["rejection"])
        outcome = Rejection(row["outcome"], RejectionKind(rejection["kind"]), rejection["details"])
    return StoredRequest(row["type"], row["hash"], outcome)
