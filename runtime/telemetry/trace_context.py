"""The trace that a piece of work belongs to, as a W3C traceparent, whether the trace is sampled or not.

How it works. The process that begins a trace decides whether it is sampled, and the flags of its traceparent
carry the decision. A caller's traceparent, or that of a trace that the edge begins, is current during its
call, and is recorded with the command's audit and events. From there sagas take it over for their steps.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from hashlib import sha256
from random import getrandbits
from typing import TypeGuard

TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_RECEIVED_TRACEPARENT = re.compile(
    "([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?"
)
"""The grammar of W3C Trace Context: the version, the ids and flags, and what later versions may append."""
_SAMPLED = frozenset("13579bdf")
"""Last digits of traceparents whose flags say that the trace is sampled."""
_CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)


def get_current() -> str | None:
    """Return the traceparent of the current span, or of the unsampled trace of the current work."""
    return _CURRENT.get()


def set_current(traceparent: str | None) -> "Token[str | None]":
    """Set the traceparent for the rest of the running task, or until `reset`."""
    return _CURRENT.set(traceparent)


def reset(token: "Token[str | None]") -> None:
    _CURRENT.reset(token)


def is_sampled(traceparent: str | None) -> TypeGuard[str]:
    return traceparent is not None and traceparent[-1:] in _SAMPLED


def get_trace_id(traceparent: str) -> str:
    return traceparent[3:35]


def begin_unsampled() -> str:
    """Return the traceparent of a new trace that is not sampled."""
    ids = f"{getrandbits(192):048x}"
    return f"00-{ids[:32]}-{ids[32:]}-00"


def derive_unsampled(name: str) -> str:
    """Return the traceparent of an unsampled trace that always belongs to this name."""
    ids = sha256(name.encode(errors="replace")).hexdigest()
    return f"00-{ids[:32]}-{ids[32:48]}-00"


def parse(value: str) -> str | None:
    """Return a received traceparent as one of version 00; None if it is malformed."""
    if (parts := _RECEIVED_TRACEPARENT.fullmatch(value)) is None:
        return None
    version, ids, appended = parts.groups()
    return None if version == "ff" or (version == "00" and appended) else f"00-{ids}"


def build_log_fields(traceparent: str | None) -> Mapping[str, str]:
    """Return the fields of a log line about work of a trace; a span has an id there only if it is sampled."""
    if traceparent is None or not TRACEPARENT.fullmatch(traceparent):
        return {}
    if traceparent[-1] not in _SAMPLED:
        return {"trace_id": get_trace_id(traceparent)}
    return {"trace_id": get_trace_id(traceparent), "span_id": traceparent[36:52]}
