"""The terms by which the index finds records: a hash for each value that operators search for."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b

from operations_server.names import shorten_name

REJECTED = "REJECTED"
"""The outcome that stands for all rejections."""
ACCEPTED = "ACCEPTED"


def hash_term(kind: str, value: str) -> int:
    """Return a term as a signed number of 64 bits. Two values may have the same: check what it finds."""
    data = f"{kind}\0{value}".encode(errors="surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big", signed=True)


def list_event_terms(type_: str, correlation_id: str, causation_id: str) -> Sequence[tuple[str, str]]:
    """Return the kinds and values of an event's terms. The two ids share a kind, since most are equal."""
    return (("type", shorten_name(type_)), ("id", correlation_id), ("id", causation_id))


def list_request_terms(
    request_id: str,
    caller: str,
    command: str,
    outcome: str,
    stream: str,
    correlation_id: str | None,
    causation_id: str | None,
) -> Sequence[tuple[str, str]]:
    """Return the kinds and values of a request's terms."""
    terms = [
        ("id", request_id),
        ("caller", caller),
        ("command", shorten_name(command)),
        ("outcome", outcome),
        ("stream", stream),
    ]
    if outcome != ACCEPTED:
        terms.append(("outcome", REJECTED))
    return [*terms, *(("id", value) for value in (correlation_id, causation_id) if value)]


def is_between(time: datetime, start: datetime | None, end: datetime | None) -> bool:
    """Return whether a time is at `start` or later, and before `end`."""
    return (start is None or time >= start) and (end is None or time < end)
