"""One stream as PostgreSQL holds it: its versions, its row, its snapshot, its bytes. Pure."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

from google.protobuf.message import DecodeError, Message

from contracts import streams
from operations.verify.model import Aggregate, Event
from operations.verify.report import Problem
from operations.verify.sources.event_store import Row, Stream, instant

UNFOLDABLE = (LookupError, ValueError, TypeError, AttributeError)
"""What a fold raises of events that do not belong together."""


@dataclass(frozen=True, slots=True)
class Story:
    """An aggregate's events as far as they can be folded."""

    events: Sequence[Event] = ()
    whole: bool = False
    """Whether these are all of its events."""
    latest: Mapping[str, Any] = field(default_factory=dict)
    """What they come to, by projection."""


def versions(stream: Stream) -> Iterator[Problem]:
    """Yield what is wrong with the versions of a stream's events, and with its row."""

    def problem(text: str) -> Problem:
        return Problem("events", f"stream {stream.name}", text)

    seen = [event.version for event in stream.events]
    if seen != list(range(1, len(seen) + 1)):
        missing = sorted(set(range(1, max(seen) + 1)) - set(seen))
        yield problem(f"version {', '.join(map(str, missing[:5])) or min(seen)} of {max(seen)} is missing")
    for earlier, later in pairwise(stream.events):
        if later.recorded_at < earlier.recorded_at:
            yield problem(
                f"version {later.version} was recorded at {instant(later.recorded_at)}, "
                f"before version {earlier.version} at {instant(earlier.recorded_at)}"
            )
        if later.position < earlier.position:
            yield problem(f"version {later.version} has a lower position than version {earlier.version}")
    if stream.row is None:
        yield problem("it has events, but no row in streams")
    elif not seen:
        yield problem("it has a row in streams, but no events")
    elif stream.row.version != max(seen):
        yield problem(f"streams.version is {stream.row.version}, its last event has version {max(seen)}")
    if stream.row and stream.row.type != streams.stream_type(stream.name):
        yield problem(f"streams.type is {stream.row.type}")


def parsed(stream: Stream, messages: Mapping[str, type[Message]]) -> tuple[list[Event], Sequence[Problem]]:
    """Return a stream's events with their messages, up to the first that cannot be read, and why."""
    events: list[Event] = []
    for event in stream.events:
        subject = f"event {event.id}"
        if event.type not in messages:
            return events, [Problem("events", subject, f"{event.type} is no event of its context")]
        try:
            events.append(Event(event, messages[event.type].FromString(event.data)))
        except DecodeError:
            return events, [Problem("events", subject, f"its bytes are no {event.type}")]
    return events, []


def folded(aggregate: Aggregate, stream: Stream, events: Sequence[Event]) -> tuple[Story, Sequence[Problem]]:
    """Return the events up to the first gap, or the first that cannot be folded, with what they come to."""
    gapless = [
        event for event, version in zip(events, count(1), strict=False) if event.recorded.version == version
    ]
    try:
        latest = _latest(aggregate, gapless)
        return Story(gapless, len(gapless) == len(stream.events), latest), ()
    except UNFOLDABLE as error:
        bad = bisect_left(
            range(1, len(gapless)), True, key=lambda number: not _folds(aggregate, gapless[:number])
        )
        said = f"it cannot be folded: {type(error).__name__}: {error}"
        problem = Problem("events", f"event {gapless[bad].recorded.id}", said)
        return Story(gapless[:bad], False, _latest(aggregate, gapless[:bad])), [problem]


def _latest(aggregate: Aggregate, events: Sequence[Event]) -> Mapping[str, Any]:
    return {reading.name: reading.fold(events) for reading in aggregate.readings} if events else {}


def _folds(aggregate: Aggregate, events: Sequence[Event]) -> bool:
    try:
        return bool(_latest(aggregate, events))
    except UNFOLDABLE:
        return False


def snapshot(aggregate: Aggregate, name: str, row: Row, story: Story) -> Iterator[Problem]:
    """Yield in which fields the state in a stream's row is not the fold of its events."""
    subject = f"snapshot of {name}"
    if not 0 < row.state_version <= row.version:
        yield Problem("snapshots", subject, f"it is at version {row.state_version} of {row.version}")
        return
    if row.state_version > len(story.events):
        return
    try:
        state = json.loads(row.state or "")
    except ValueError:
        state = None
    fold = aggregate.snapshot(story.events[: row.state_version])
    if not isinstance(state, dict):
        yield Problem("snapshots", subject, "it is no JSON object")
    elif state != fold:
        for key in [key for key in {**fold, **state} if state.get(key) != fold.get(key)]:
            said = f"{key} is {_short(state.get(key))}, the fold says {_short(fold.get(key))}"
            yield Problem("snapshots", subject, f"{said} at version {row.state_version}")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
