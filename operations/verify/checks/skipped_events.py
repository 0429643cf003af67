"""The events of one stream without those that a projection or a saga steps over by an operator's act."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from contracts.event_types import EventTypes
from contracts.forgetting import FORGOTTEN, note_forgotten
from operations.verify.checks.stored_streams import FOLD_ERRORS, StreamEvents, parse_event
from operations.verify.model import Event, Problem, ProjectionSpec
from operations.verify.sources import PostgresReader, StoredStream
from operations.verify.spool import SpooledEvents

READ = "SELECT consumer, stream, version FROM skipped_events WHERE stream = ANY(:streams)"

Skips = Mapping[str, Mapping[str, frozenset[int]]]
"""Versions by stream and consumer."""


async def read_skips(postgres: PostgresReader, streams: Sequence[str]) -> Skips:
    """Return the skipped versions of these streams."""
    skips: dict[str, dict[str, frozenset[int]]] = {}
    for consumer, stream, version in await postgres.fetch(READ, streams=list(streams)):
        consumers = skips.setdefault(stream, {})
        consumers[consumer] = consumers.get(consumer, frozenset()) | {version}
    return skips


def select_events(stream: StoredStream, types: EventTypes, skipped: frozenset[int]) -> StreamEvents:
    """Return the events that are not skipped, up to the first gap or the first that cannot be parsed."""
    events, last = list[Event](), 0
    for version, recorded in zip(count(1), stream.events, strict=False):
        if recorded.version != version:
            break
        if version not in skipped:
            parsed = parse_event(recorded, types, stream.keys)
            if isinstance(parsed, Problem):
                break
            events.append(parsed)
        last = version
    return StreamEvents(
        events, last == len(stream.events), skipped=skipped, last=last, forgotten=find_forgotten(stream)
    )


def find_forgotten(stream: StoredStream) -> dict[int, bytes]:
    """Return the data of the events that say that a person was forgotten, by version.

    Folds leave them out.
    """
    events = stream.events
    selected = events.select({FORGOTTEN}) if isinstance(events, SpooledEvents) else events
    return {event.version: event.data for event in selected if event.type == FORGOTTEN}


def fold_up_to(spec: ProjectionSpec, events: StreamEvents, version: int, data: bytes) -> Any:
    """Return the view that results from the events up to a version.

    Where they contradict each other without the skipped ones, as without a first event, nothing tells what
    the view should be, and it is returned as it is stored.

    Args:
        spec: the projection.
        events: of the stream.
        version: of the view.
        data: the stored view.

    Raises:
        DecodeError: the stored view cannot be read.
    """
    message = spec.view.message
    selected = [event for event in events.events if event.recorded.version <= version]
    try:
        view: Any = spec.fold(selected) if selected else message()
    except FOLD_ERRORS:
        view = message.FromString(data)
    if "version" in message.DESCRIPTOR.fields_by_name:
        view.version = version
    for forgotten, event in events.forgotten.items():
        if forgotten <= version:
            note_forgotten(view, event)
    return view


def omit_problems(problems: Sequence[Problem], stream: str, skipped: frozenset[int]) -> list[Problem]:
    """Return problems without those of single events that are skipped."""
    subjects = {f"event {stream}@{version}" for version in skipped}
    return [problem for problem in problems if problem.subject not in subjects]
