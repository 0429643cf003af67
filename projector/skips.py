"""The skipped events of one projection, as this process knows them.

How it works. A session begins with all skipped events: those of the copy in Redis, or those that a relay has
told if there is no copy of this incarnation. An event is skipped while its aggregate is parked at it, so a
replay looks whether its event was skipped meanwhile, and the replayer whether any was. If a view has passed
such an event, for instance in a build that was under way, it is folded again. Every ASK_INTERVAL a relay is
asked, in case the copy could not be written when the event was skipped.
"""

from collections.abc import Mapping
from time import monotonic
from typing import Protocol

from runtime.process import logs

ASK_INTERVAL = 30.0
"""Seconds between two requests to the relay."""
NONE: frozenset[int] = frozenset()

log = logs.get_logger(__name__)

Event = tuple[str, int]
"""A stream and a version."""


class SkipsUnknown(Exception):
    """No relay has told which events to skip."""


class SkipSource(Protocol):
    """Where the skipped events of one projection are read."""

    async def read_copy(self, incarnation: str) -> frozenset[Event] | None:
        """Return the copy; None if there is none of this incarnation."""

    async def read_number(self) -> int:
        """Return the number of events in the copy, whatever its incarnation; -1 without a copy."""

    async def is_skipped(self, event: Event, incarnation: str) -> bool:
        """Return whether the copy has an event."""

    async def renew_copy(self, incarnation: str) -> frozenset[Event]:
        """Ask a relay, write the copy, and return it.

        Raises:
            SkipsUnknown: no relay of this incarnation has replied.
        """


class Skips:
    """Skipped events.

    Args:
        source: where they are read; None if there are none.
    """

    def __init__(self, source: SkipSource | None = None) -> None:
        self._source = source
        self._incarnation = ""
        self._events: frozenset[Event] = frozenset()
        self._versions: Mapping[str, frozenset[int]] = {}
        self._ask_at = 0.0
        self._late: set[Event] = set()

    def of(self, stream: str) -> frozenset[int]:
        """Return the versions of a stream that are skipped."""
        return self._versions.get(stream, NONE)

    async def begin(self, incarnation: str) -> None:
        """Read all skipped events, before any event is applied.

        Raises:
            SkipsUnknown: there is no copy of this incarnation, and no relay has replied.
        """
        if self._source is None:
            return
        events = await self._source.read_copy(incarnation)
        if events is None:
            events = await self._source.renew_copy(incarnation)
        if incarnation != self._incarnation:
            self._events, self._late = frozenset(), set()
            self._incarnation = incarnation
            self._set(events)
        else:
            self._add(events)

    async def look_up(self, stream: str, version: int) -> None:
        """Look whether an event was skipped by now."""
        if self._source is None or version in self.of(stream):
            return
        if await self._source.is_skipped((stream, version), self._incarnation):
            self._set(self._events | {(stream, version)})

    async def refresh(self) -> set[Event]:
        """Read what was skipped meanwhile.

        Returns:
            The events that were not known when `refresh` or `begin` was called before: views may have passed
            them.
        """
        if self._source is None:
            return set()
        late, self._late = self._late, set()
        if monotonic() >= self._ask_at:
            self._ask_at = monotonic() + ASK_INTERVAL
            try:
                self._add(await self._source.renew_copy(self._incarnation))
            except SkipsUnknown:
                log.debug("No relay tells skipped events", exc_info=True)
        elif await self._source.read_number() != len(self._events):
            self._add(await self._source.read_copy(self._incarnation) or frozenset())
        return late

    def _add(self, events: frozenset[Event]) -> None:
        self._late |= events - self._events
        self._set(self._events | events)

    def _set(self, events: frozenset[Event]) -> None:
        if events == self._events:
            return
        versions: dict[str, set[int]] = {}
        for stream, version in events:
            versions.setdefault(stream, set()).add(version)
        self._events = events
        self._versions = {stream: frozenset(each) for stream, each in versions.items()}


NO_SKIPS = Skips()
