"""The metadata of the current call. It is read once per call, since gRPC builds it again on every access.

Metadata is input like any field, and gRPC passes on control characters that a raw client writes. Whatever is
taken over from it, into events, logs or further calls, matches a pattern here or in `tracing`.
"""

import re
from collections.abc import Sequence
from contextvars import ContextVar

from contracts.streams import VALID_ID

Metadata = Sequence[tuple[str, str | bytes]]

_METADATA: ContextVar[Metadata] = ContextVar("metadata", default=())


IGNORED = "diptych-ignored-metadata"
"""Trailing metadata of a command: the keys of ids that were not taken over, separated by commas."""
STALENESS = "diptych-staleness-ms"
"""Trailing metadata of a query: an upper bound on the age of the data, in milliseconds."""
CORRELATION_ID, CAUSATION_ID = "diptych-correlation-id", "diptych-causation-id"
"""The conversation of a command, and the message that caused it."""
VALID_CAUSE = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_-]+(?:[./:@][A-Za-z0-9_-]+)*")
"""The id of an event, of a saga's step or of another message: one id or several, 128 characters in all."""
ID_PATTERNS = {CORRELATION_ID: VALID_ID, CAUSATION_ID: VALID_CAUSE}
"""The ids that callers may give, and the patterns of those that are taken over."""


def set_current(metadata: Metadata) -> None:
    """Set the metadata for the rest of the running task; gRPC runs every call in a task of its own."""
    _METADATA.set(metadata)


def current() -> Metadata:
    """Return the metadata of the current call, with keys in lower case."""
    return _METADATA.get()


def read_ids() -> tuple[dict[str, str], list[str]]:
    """Return the ids of the current call by key, and the keys of those that are not taken over.

    An id that does not match its pattern is not taken over, nor is one of several under the same key. The
    call is not refused for it, because a proxy may have added it.
    """
    ids: dict[str, str] = {}
    ignored: list[str] = []
    for key, value in _METADATA.get():
        if (pattern := ID_PATTERNS.get(key)) is None or key in ignored:
            continue
        if key in ids or not isinstance(value, str) or not pattern.fullmatch(value):
            ignored.append(key)
        else:
            ids[key] = value
    for key in ignored:
        ids.pop(key, None)
    return ids, ignored
