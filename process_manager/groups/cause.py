"""The cause of a saga's steps and timers: the ids and the trace that the calls of its steps carry on. Pure.

How it works:

- An event, a timer and an operator's action are causes of their own. A timer has the cause of the input that
  set it. A reply is none: it continues what its step was sent for, unless something newer has happened since,
  for instance a cancellation while the step was under way. So an instance keeps the latest cause.
- An event that one of the instance's own steps has brought about may come behind a newer cause. It is none
  then either.
"""

from collections.abc import Mapping

import msgspec

from contracts.envelope import RecordedEvent
from process_manager.postgres.stored_values import to_text


class Cause(msgspec.Struct, frozen=True, gc=False):
    """The conversation that a step continues, the message that caused it, and the trace of both."""

    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str | None = None


def read_cause(event: RecordedEvent) -> Cause:
    """Return an event as a cause."""
    return Cause(
        _read(event.metadata, "correlation_id") or "", event.id, _read(event.metadata, "traceparent")
    )


def _read(metadata: Mapping[str, str], key: str) -> str | None:
    value = metadata.get(key)
    return None if value is None else to_text(value)
