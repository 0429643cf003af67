"""The records that pass between fold, writer and store: views, their updates, and parked aggregates.

They are msgspec structs rather than dataclasses, because every event creates some, and a struct is created
and replaced ten times faster.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from contracts.envelope import RecordedEvent
from projector.projection import Entry, RenderedView


class Parked(msgspec.Struct, frozen=True):
    """The record of a parked aggregate: one of its events cannot be applied, so the later ones wait."""

    stream: str
    version: int
    """The version of the event that cannot be applied."""
    error: str
    since: int
    """The time of the first failure, in milliseconds since 1970."""
    attempts: int
    """Attempts to apply that event that have failed; 0 while the aggregate's stream is read up to it."""
    next_attempt: int | None
    """The time of the next attempt, in milliseconds since 1970; None if only an operator can replay it."""
    state: Literal["retrying", "parked"]
    refold: bool = False
    """The view is folded again from its first event, because an operator doubts it."""
    stale_since: int = 0
    """The time before which the view includes all committed events, in milliseconds since 1970 by Redis's
    clock; 0 if it is unknown."""
    tried_by: tuple[str, ...] = ()
    """The codes of the projectors that failed at this event (code_version.py), the last MAX_CODES of them."""
    place: str = ""
    """Where in the code the error was raised; empty if that is unknown."""


class Record(msgspec.Struct, frozen=True):
    """One view, as loaded or as it will be written; contracts/view_layout.py describes the fields."""

    id: str
    message: Any
    """The view message. It is never modified: the fold copies it."""
    version: int = 0
    revision: int = 0
    entries: tuple[Entry, ...] = ()
    parked: Parked | None = None
    archived: bool = False
    """Whether the store has a tombstone only: `message` is empty, `entries` has the kept index entries."""
    error: str = ""
    """Why the stored view cannot be read; empty if it can. `message` and `entries` then mean nothing."""
    is_hash: bool = True
    """False: another type of key is in the place of the view; `restore_hash` replaces it."""


class Update(msgspec.Struct, frozen=True):
    """A write of one view. It takes effect only if the stored view still equals `before`."""

    before: Record
    after: Record
    content: RenderedView[Any] | None
    """None if only `parked` changes."""
    applied_events: Sequence[RecordedEvent]
    failed_event: RecordedEvent | None
    """The event that stopped the fold: it cannot be applied, or it follows a gap."""
    started_ns: int
    """When the fold began, in nanoseconds since 1970."""
    repairs: Literal["", "history", "view"] = ""
    """What is written again, for events that were applied before; empty for new events."""
    is_backfill: bool = False
    """Whether the events belong to a build or a replay, so that their delay tells nothing about the feed."""


class FoldedBatch(msgspec.Struct, frozen=True):
    """The updates of views by some events."""

    pending_events: Mapping[str, Sequence[RecordedEvent]]
    """The events, by view."""
    updates: Sequence[Update]
    seconds: float
    """The time that the handlers took."""
