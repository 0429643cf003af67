"""One stream as PostgreSQL holds it: its versions, its row, its snapshot, its bytes. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from google.protobuf.message import DecodeError, Message

from operations.verify.findings import Problem
from operations.verify.model import Aggregate, Event
from operations.verify.store import Row, Stream, instant
from runtime import streams


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


def snapshot(aggregate: Aggregate, name: str, row: Row, events: Sequence[Event]) -> Iterator[Problem]:
    """Yield in which fields the state in a stream's row is not the fold of its events."""
    subject = f"snapshot of {name}"
    if row.state is None:
        return
    if not 0 < row.state_version <= row.version:
        yield Problem("snapshots", subject, f"it is at version {row.state_version} of {row.version}")
        return
    try:
        state = json.loads(row.state)
    except ValueError:
        yield Problem("snapshots", subject, "it is no JSON")
        return
    fold = aggregate.snapshot(events[: row.state_version])
    if state == fold:
        return
    if not isinstance(state, dict):
        yield Problem("snapshots", subject, "it is no JSON object")
        return
    for key in sorted({*state, *fold}):
        if state.get(key) != fold.get(key):
            yield Problem(
                "snapshots",
                subject,
                f"{key} is {_short(state.get(key))}, the fold says {_short(fold.get(key))} "
                f"at version {row.state_version}",
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
