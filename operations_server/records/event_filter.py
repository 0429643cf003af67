"""The filter of events."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operations_server.names import shorten_name
from operations_server.records.terms import hash_term, is_between

_PLAIN = re.compile(r"[A-Za-z0-9_.@:/-]+")
"""Texts that JSON does not escape."""


@dataclass(frozen=True)
class EventFilter:
    """The fields by which events are selected; a field without a value selects all."""

    stream: str = ""
    type: str = ""
    """A full or a short name."""
    correlation_id: str = ""
    causation_id: str = ""
    from_time: datetime | None = None
    until_time: datetime | None = None
    after_position: int = 0
    until_version: int = 0

    @classmethod
    def of(cls, request: Any) -> "EventFilter":
        """Return the filter of a request, which may lack some of the fields."""
        fields = request.DESCRIPTOR.fields_by_name
        values = {
            name: getattr(request, name)
            for name in ("stream", "type", "correlation_id", "causation_id", "until_version")
            if name in fields
        }
        if "from_time" in fields:
            values |= {name: read_time(request, name) for name in ("from_time", "until_time")}
        return cls(**values, after_position=request.after_position)

    @property
    def terms(self) -> Sequence[int]:
        """The terms that an event has that this filter selects, the most selective first."""
        pairs = [("id", self.correlation_id), ("id", self.causation_id), ("type", shorten_name(self.type))]
        return [hash_term(kind, value) for kind, value in dict.fromkeys(pairs) if value]

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of the statements that scan events: those that decide alone, or select too many."""
        ids = (self.correlation_id, self.causation_id)
        texts = [text if _PLAIN.fullmatch(text) else None for text in ids]
        return (self.type or None, *texts, self.from_time, self.until_time)

    def selects(self, recorded_at: datetime, metadata: Mapping[str, Any]) -> bool:
        """Return whether an event of the right stream and type is selected."""
        return (
            (not self.correlation_id or metadata.get("correlation_id") == self.correlation_id)
            and (not self.causation_id or metadata.get("causation_id") == self.causation_id)
            and is_between(recorded_at, self.from_time, self.until_time)
        )


def read_time(request: Any, name: str) -> datetime | None:
    """Return a time of a request; None if it is not set."""
    return getattr(request, name).ToDatetime(tzinfo=UTC) if request.HasField(name) else None


def parse_metadata(text: str) -> Mapping[str, Any]:
    """Return an event's metadata, with unpaired surrogates; nothing if it is no JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
