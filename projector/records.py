"""Views as the projector holds them between the feed and the store, and why an aggregate is parked.

Structs of msgspec rather than dataclasses: they are made and replaced ten times faster, for every event.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from contracts.envelope import RecordedEvent
from projector.projection import Entry, Rendered


class Parked(msgspec.Struct, frozen=True):
    """Why an aggregate is parked: an event of it cannot be applied, so its later ones have to wait."""

    stream: str
    version: int
    """Of the event that cannot be applied."""
    error: str
    since: int
    """When it failed first, in milliseconds since 1970."""
    attempts: int
    next_attempt: int | None
    """When it is tried again, in milliseconds since 1970; None once only an operator can say."""
    state: Literal["retrying", "parked"]


class Record(msgspec.Struct, frozen=True):
    """One view as the store has it, or is to have it; contracts/view_layout.py describes the fields."""

    id: str
    message: Any
    """The view message; never changed once it is here."""
    version: int = 0
    revision: int = 0
    entries: tuple[Entry, ...] = ()
    parked: Parked | None = None


class Update(msgspec.Struct, frozen=True):
    """A write of one view: it takes effect only where the store still has the view as it was before."""

    before: Record
    after: Record
    content: Rendered[Any] | None
    """None where only `parked` changes."""
    applied: Sequence[RecordedEvent]
    failed: RecordedEvent | None
    """The event that could not be applied, if it is there at all."""
    started_ns: int
    """When folding began, in nanoseconds since 1970."""
