"""One stream in PostgreSQL, without I/O: its versions, its row, its snapshot and the bytes of its events."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from google.protobuf.message import DecodeError

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes, UnknownEvent
from contracts.forgetting import FORGOTTEN
from contracts.personal_data import Keys, Sealed
from contracts.personal_fields import list_personal_names, mask_state
from operations.verify.model import Aggregate, Event, Problem
from operations.verify.sources import StoredStream, StreamRow
from operations.verify.spool import ParsedEvents, SpooledEvents
from runtime.subject_keys import open_event

FOLD_ERRORS = (LookupError, ValueError, TypeError, AttributeError)
"""Errors that a fold raises for events that contradict each other."""
MAX_LEAD = timedelta(seconds=1)
"""Lead of an event over the database's time up to which the next event takes its time over."""
MAX_VALUE_LENGTH = 200
"""Characters of a value in a finding."""


@dataclass(frozen=True, slots=True)
class StreamEvents:
    """An aggregate's events up to the first that cannot be folded."""

    events: Sequence[Event] = ()
    complete: bool = False
    """All of the aggregate's events are here."""
    folds: Mapping[str, Any] = field(default_factory=dict)
    """The views that result from all these events, by projection."""
    skipped: frozenset[int] = frozenset()
    """Versions that are not among the events, since an operator has had them skipped."""
    last: int = 0
    """The last version up to which the events are here, where some are skipped."""
    forgotten: Mapping[int, bytes] = field(default_factory=dict)
    """The data of the events that say that a person was forgotten, by version."""

    @property
    def last_version(self) -> int:
        return self.last if self.skipped else len(self.events)

    def list_versions(self) -> Sequence[int]:
        if self.skipped:
            return [event.recorded.version for event in self.events]
        return range(1, len(self.events) + 1)


def check_versions(stream: StoredStream) -> Iterator[Problem]:
    """Check the versions, times and positions of a stream's events, and its row."""

    def problem(text: str) -> Problem:
        return Problem("events", f"stream {stream.name}", text)

    versions = list_versions(stream.events)
    if any(version != number for number, version in enumerate(versions, 1)):
        first, last = min(versions), max(versions)
        missing_versions = islice(_find_missing(versions), 5)
        yield problem(f"version {', '.join(map(str, missing_versions)) or first} of {last} is missing")
    for earlier, later in pairwise(stream.events):
        if later.recorded_at < earlier.recorded_at and not _sets_time_aside(earlier, later):
            yield problem(
                f"version {later.version} was recorded at {_format_time(later.recorded_at)}, "
                f"before version {earlier.version} at {_format_time(earlier.recorded_at)}"
            )
        if later.position < earlier.position:
            yield problem(f"version {later.version} has a lower position than version {earlier.version}")
    if stream.row is None:
        yield problem("has events, but no row in streams")
    elif not versions:
        yield problem("has a row in streams, but no events")
    elif stream.row.version != max(versions):
        yield problem(f"streams.version is {stream.row.version}, the last event has version {max(versions)}")
    stream_type = streams.stream_type(stream.name)
    if stream.row and stream.row.type != stream_type:
        yield problem(f"streams.type is {stream.row.type}, expected {stream_type}")


def list_versions(events: Sequence[RecordedEvent]) -> Sequence[int]:
    return events.list_versions() if isinstance(events, SpooledEvents) else [e.version for e in events]


def find_version(events: Sequence[RecordedEvent], version: int) -> RecordedEvent | None:
    """Return the event of a version; the events are in order of their versions."""
    index = bisect_left(versions := list_versions(events), version)
    return events[index] if index < len(versions) and versions[index] == version else None


def _find_missing(versions: Sequence[int]) -> Iterator[int]:
    """Yield the versions from 1 on that are missing among these, which are in order."""
    expected = 1
    for version in versions:
        yield from range(expected, version)
        expected = max(expected, version + 1)


def _sets_time_aside(earlier: RecordedEvent, later: RecordedEvent) -> bool:
    """Return whether an event may precede the one before it: a wrong clock had recorded that one.

    The event must say so itself, and the two must be further apart than the clocks of working servers.
    """
    recorded = earlier.recorded_at.isoformat() == later.metadata.get("time_set_aside")
    return recorded and earlier.recorded_at - later.recorded_at > MAX_LEAD


def parse_events(stream: StoredStream, types: EventTypes) -> tuple[Sequence[Event], Sequence[Problem]]:
    """Return a stream's events up to the first that cannot be parsed, and the problem with that one.

    Folds know nothing of the event that says that a person was forgotten, so it is not among them.
    """
    if isinstance(stream.events, SpooledEvents) and not any(stream.events.select({FORGOTTEN})):
        count, problems = 0, list[Problem]()
        for parsed in _parse_each(stream, types):
            if isinstance(parsed, Problem):
                problems.append(parsed)
            else:
                count += 1
        return ParsedEvents(stream.events[:count], types, stream.keys), problems
    results = list(_parse_each(stream, types))
    events = [result for result in results if isinstance(result, Event)]
    return events, [result for result in results if isinstance(result, Problem)]


def _parse_each(stream: StoredStream, types: EventTypes) -> Iterator[Event | Problem]:
    """Yield events; at the first that cannot be parsed, yield the problem with it and end."""
    for event in stream.events:
        if event.type == FORGOTTEN:
            continue
        yield (parsed := parse_event(event, types, stream.keys))
        if isinstance(parsed, Problem):
            return


def parse_event(event: RecordedEvent, types: EventTypes, keys: Keys) -> Event | Problem:
    """Return an event in clear, or the problem with it."""
    subject = f"event {event.id}"
    event = open_event(event, event.stream, keys)
    try:
        return Event(event, types.decode(event))
    except Sealed:
        return Problem("events", subject, "its personal data cannot be opened: no row has its key")
    except UnknownEvent:
        return Problem("events", subject, f"unknown type {event.type}")
    except DecodeError:
        return Problem("events", subject, f"data does not parse as {event.type}")
    except Exception as error:  # an upcaster may fail on content that no rule would have recorded
        text = f"cannot be upcast from {event.type}: {type(error).__name__}: {error}"
        return Problem("events", subject, text)


def fold_events(
    aggregate: Aggregate, stream: StoredStream, events: Sequence[Event]
) -> tuple[StreamEvents, Sequence[Problem]]:
    """Fold the events up to the first gap, or up to the first that cannot be folded."""
    versions = list_versions(stream.events)[: len(events)]
    gap = next((index for index, version in enumerate(versions) if version != index + 1), len(versions))
    gapless = events[:gap]
    try:
        folds = _fold(aggregate, gapless)
        return StreamEvents(gapless, len(gapless) == len(stream.events), folds), ()
    except FOLD_ERRORS as error:
        # A prefix that contains the bad event fails, so bisection finds the shortest one that does.
        bad_index = bisect_left(
            range(1, len(gapless)), True, key=lambda length: not _can_fold(aggregate, gapless[:length])
        )
        text = f"cannot be folded: {type(error).__name__}: {error}"
        problem = Problem("events", f"event {gapless[bad_index].recorded.id}", text)
        return StreamEvents(gapless[:bad_index], False, _fold(aggregate, gapless[:bad_index])), [problem]


def _fold(aggregate: Aggregate, events: Sequence[Event]) -> Mapping[str, Any]:
    return {spec.name: spec.fold(events) for spec in aggregate.projections} if events else {}


def _can_fold(aggregate: Aggregate, events: Sequence[Event]) -> bool:
    try:
        return bool(_fold(aggregate, events))
    except FOLD_ERRORS:
        return False


def check_snapshot(
    aggregate: Aggregate, name: str, row: StreamRow, events: Sequence[Event], kind: str = "snapshot"
) -> Iterator[Problem]:
    """Compare the state in a stream's row with the fold of its events, field by field."""
    subject = f"{kind} of {name}"
    if not 0 < row.state_version <= row.version:
        yield Problem("snapshots", subject, f"version {row.state_version}, the stream has {row.version}")
        return
    if row.state_version > len(events):
        return
    try:
        state = json.loads(row.state or "")
    except ValueError:
        state = None
    expected = aggregate.snapshot(events[: row.state_version])
    if not isinstance(state, dict):
        yield Problem("snapshots", subject, "not a JSON object")
    elif state != expected:
        names = _list_personal_names(aggregate)
        for key in [key for key in {**expected, **state} if state.get(key) != expected.get(key)]:
            shown, expected_shown = (mask_state(each.get(key), names, key) for each in (state, expected))
            text = f"{key} is {_shorten(shown)}, expected {_shorten(expected_shown)}"
            yield Problem("snapshots", subject, f"{text} (version {row.state_version})")


def _list_personal_names(aggregate: Aggregate) -> frozenset[str]:
    views = (spec.view.message.DESCRIPTOR for spec in aggregate.projections)
    return list_personal_names([*aggregate.events.descriptors, *views])


def _shorten(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


def _format_time(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
