"""The rows that a group of inputs needs, as `group_store.py` reads them. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from process_manager.groups.cause import Cause
from process_manager.postgres.due_work import Checkpoint, DueTimer, Feed

Key = tuple[str, str]
"""The saga and the id of an instance, or the saga and the name of a stream."""


@dataclass
class ParkedStream:
    """A stream whose events wait."""

    feed: Feed
    stream: str
    version: int
    """Of the first event that waits."""
    latest: int
    """Of the latest event that waits; 0 if it is unknown: then all events of the stream wait."""
    error: str = ""
    revision: int | None = None
    """Of the stored row; None if there is none."""
    changed: bool = False


@dataclass(frozen=True)
class StoredRows:
    """The rows that a group needs."""

    now: datetime
    """PostgreSQL's time."""
    instances: Mapping[Key, Any]
    """With the steps of the instances; a row without a version is that of an instance to come."""
    parked: Mapping[Key, ParkedStream]
    timers: Mapping[DueTimer, Cause | None]
    """Those that have not been fired, stopped or set anew, with their causes; None if unknown."""
    checkpoints: Mapping[Feed, Checkpoint]
    """Those of feeds that have lost a race."""
    are_kept: bool = False
    """Whether nothing was read: the rows are as this process has written them (`kept_rows.py`)."""


class Needs(Protocol):
    """What an input needs."""

    @property
    def instances(self) -> Collection[Key]: ...

    @property
    def streams(self) -> Collection[Key]:
        """Those that may be parked."""

    @property
    def feed(self) -> Feed | None: ...

    @property
    def timer(self) -> DueTimer | None: ...

    def accepts(self, known: Mapping[Key, Any]) -> bool:
        """Return whether these rows of its instances, as this process has written them, are enough."""
