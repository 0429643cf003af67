"""What is on record of sagas: instances with their steps, and the inputs that they have received."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from contracts import streams
from contracts.envelope import RecordedEvent
from operations.rehearse.recorded import Record, build_event
from runtime.skipped_events import name_saga

PAGE = 300
"""Instances that are read at once."""
OWN_EVENTS = 500
"""The version of an instance's own stream up to which it is replayed."""
OTHER_EVENTS = 200
"""Events of another stream that are read of each instance, back from the last one that it has received."""

Key = tuple[str, str]
"""A saga, and the id of an instance."""

READ_KEYS = """
SELECT saga, id FROM sagas WHERE (saga, id) > ($1, $2) AND saga = ANY($3::text[]) ORDER BY saga, id LIMIT $4
"""
_KEYS = "unnest($1::text[], $2::text[]) AS k (saga, id)"
READ_ROWS = f"""
SELECT s.saga, s.id, s.version, s.other_streams::text, s.state::text, s.status, s.ended, s.waiting_for,
  s.blocked_reason, s.failed_input, s.unreadable, s.began_at, s.archived_steps::text
FROM {_KEYS} JOIN sagas s USING (saga, id)
"""  # noqa: S608 - no part of it is data
READ_STEPS = f"""
SELECT s.saga, s.id, s.step, s.attempt, s.number, s.method, s.request, s.request_id, s.decided_at, s.outcome,
  s.answered_at
FROM {_KEYS} JOIN saga_steps s USING (saga, id) ORDER BY s.saga, s.id, s.number
"""  # noqa: S608 - no part of it is data
READ_TIMERS = f"SELECT t.saga, t.id, t.name, t.due_at FROM {_KEYS} JOIN saga_timers t USING (saga, id)"  # noqa: S608
READ_ACTIONS = f"""
SELECT a.saga, a.id, a.action, a.reason, a.at FROM {_KEYS} JOIN saga_operator_actions a USING (saga, id)
ORDER BY a.number
"""  # noqa: S608 - no part of it is data
READ_REQUESTS = """
SELECT r.request_id, r.receipt::text, r.rejection::text, r.recorded_at, r.caller FROM requests r
WHERE r.caller = ANY(ARRAY(SELECT DISTINCT subject FROM saga_callers)) AND r.request_id = ANY($1::uuid[])
"""
READ_SLICES = """
SELECT e.stream, e.version, e.type, e.data, e.metadata::text, e.recorded_at, e.position
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS k (stream, first, last)
JOIN events e ON e.stream = k.stream AND e.version BETWEEN k.first AND k.last
ORDER BY e.stream, e.version
"""
READ_DEADLINES = """
SELECT d.id, d.due_at, e.stream, e.version, e.type, e.data, e.metadata::text, e.recorded_at, e.position
FROM saga_deadlines d JOIN events e ON e.stream = $2 || '.' || d.id AND e.version = 1
WHERE d.saga = $1 AND d.id > $3 ORDER BY d.id LIMIT $4
"""
READ_BEGINNINGS = "SELECT saga, at FROM saga_beginnings WHERE at IS NOT NULL"

_decode_positions = msgspec.json.Decoder(dict[str, dict[str, Any]]).decode
_decode_receipt = msgspec.json.Decoder(dict[str, int]).decode


class RecordedStep(msgspec.Struct, frozen=True):
    """An attempt of a step, as the running release has sent it."""

    step: str
    attempt: int
    number: int
    method: str
    request: bytes
    request_id: UUID
    decided_at: datetime
    outcome: str | None
    answered_at: datetime | None


class Answer(msgspec.Struct, frozen=True):
    """The recorded answer to a request."""

    receipt: Mapping[str, int] = {}
    """The versions of its streams after it, its target first; empty for a rejection."""
    details: Mapping[str, str] = {}
    """Of a rejection."""
    at: datetime = datetime.min
    caller: str = ""

    @property
    def version(self) -> int:
        """The version of its target after it; 0 if it is unknown."""
        return next(iter(self.receipt.values()), 0)


@dataclass
class RecordedSaga:
    """An instance, with everything that is known of its inputs and its effects."""

    row: Any
    positions: Mapping[str, int]
    """By the names of the other streams that it follows."""
    is_row_readable: bool = True
    steps: list[RecordedStep] = field(default_factory=list)
    timers: dict[str, datetime] = field(default_factory=dict)
    actions: list[tuple[datetime, str, str]] = field(default_factory=list)
    """When, `retry` or `abort`, and the reason."""
    answers: dict[UUID, Answer] = field(default_factory=dict)
    events: dict[str, list[RecordedEvent]] = field(default_factory=dict)
    """By stream, up to the last one that it has received, without those that it has stepped over; of other
    streams perhaps not all."""
    is_complete: bool = True
    """Whether all events of the other streams were read."""

    @property
    def is_long(self) -> bool:
        """Whether it has too many events of its own to be replayed; none are read then."""
        return bool(self.row["version"] > OWN_EVENTS)


async def read_keys(record: Record, sagas: Collection[str]) -> AsyncIterator[list[Key]]:
    """Yield the keys of all instances of these sagas in pages."""
    after: Key = ("", "")
    while rows := await record.fetch(READ_KEYS, *after, list(sagas), PAGE):
        yield [(row[0], row[1]) for row in rows]
        after = rows[-1][0], rows[-1][1]


async def read_beginnings(record: Record) -> dict[str, datetime]:
    """Return when sagas began that pass over the events from before; the others are missing."""
    return {row[0]: row[1] for row in await record.fetch(READ_BEGINNINGS)}


async def read_deadlines(
    record: Record, saga: str, stream_type: str
) -> AsyncIterator[tuple[str, datetime, RecordedEvent]]:
    """Yield the deadlines of a saga that have no instance yet, each with the first event of its stream."""
    after = ""
    while rows := await record.fetch(READ_DEADLINES, saga, stream_type, after, PAGE):
        events = await record.open([build_event(row[2:]) for row in rows])
        for row, event in zip(rows, events, strict=True):
            yield row[0], row[1], event
        after = rows[-1][0]


async def read_slices(
    record: Record, slices: Mapping[str, tuple[int, int]]
) -> dict[str, list[RecordedEvent]]:
    """Return the events of streams between two versions, by stream."""
    by_stream: dict[str, list[RecordedEvent]] = {}
    columns = list(slices), [first for first, _ in slices.values()], [last for _, last in slices.values()]
    rows = await record.fetch(READ_SLICES, *columns)
    for event in await record.open([build_event(row) for row in rows]):
        by_stream.setdefault(event.stream, []).append(event)
    return by_stream


async def read_sagas(
    record: Record, keys: Sequence[Key], own_types: Mapping[str, str]
) -> dict[Key, RecordedSaga]:
    """Return instances.

    Args:
        record: the record.
        keys: of the instances.
        own_types: the types of their own streams, by saga; empty for a saga that has none.
    """
    columns = [saga for saga, _ in keys], [id_ for _, id_ in keys]
    sagas: dict[Key, RecordedSaga] = {}
    for row in await record.fetch(READ_ROWS, *columns):
        sagas[row["saga"], row["id"]] = RecordedSaga(row, *_parse_positions(row["other_streams"]))
    for saga, id_, *values in await record.fetch(READ_STEPS, *columns):
        sagas[saga, id_].steps.append(RecordedStep(*values))
    for saga, id_, name, due_at in await record.fetch(READ_TIMERS, *columns):
        sagas[saga, id_].timers[name] = due_at
    for saga, id_, action, reason, at in await record.fetch(READ_ACTIONS, *columns):
        if (saga, id_) in sagas:
            sagas[saga, id_].actions.append((at, action, reason))
    await _read_answers(record, sagas.values())
    await _read_events(record, sagas, own_types)
    return sagas


def _parse_positions(column: str) -> tuple[Mapping[str, int], bool]:
    """Return the positions in other streams, and whether they can be read."""
    try:
        return {stream: int(each["version"]) for stream, each in _decode_positions(column).items()}, True
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return {}, False


async def _read_answers(record: Record, sagas: Collection[RecordedSaga]) -> None:
    owners = {step.request_id: saga for saga in sagas for step in saga.steps if step.outcome}
    for request_id, receipt, rejection, at, caller in await record.fetch(READ_REQUESTS, list(owners)):
        details = msgspec.json.decode(rejection).get("details", {}) if rejection else {}
        answer = Answer(_decode_receipt(receipt) if receipt else {}, details, at, caller)
        owners[request_id].answers[request_id] = answer


async def _read_events(
    record: Record, sagas: Mapping[Key, RecordedSaga], own_types: Mapping[str, str]
) -> None:
    """Read each stream once, also if several instances follow it."""
    slices: dict[str, tuple[int, int]] = {}
    for (name, id_), saga in sagas.items():
        if saga.is_long:
            continue
        wanted = {stream: (max(1, last - OTHER_EVENTS + 1), last) for stream, last in saga.positions.items()}
        saga.is_complete = all(first == 1 for first, _ in wanted.values())
        if own_types[name]:
            wanted[streams.stream_name(own_types[name], id_)] = (1, saga.row["version"])
        for stream, (first, last) in wanted.items():
            known_first, known_last = slices.get(stream, (first, last))
            slices[stream] = min(first, known_first), max(last, known_last)
            saga.events[stream] = []
    by_stream, skips = await read_slices(record, slices), await record.read_skips(slices)
    for (name, id_), saga in sagas.items():
        for stream in saga.events:
            own = own_types[name] and stream == streams.stream_name(own_types[name], id_)
            last = saga.row["version"] if own else saga.positions[stream]
            skipped = skips.get((name_saga(name), stream), frozenset())
            saga.events[stream] = [
                event
                for event in by_stream.get(stream, ())
                if event.version <= last and event.version not in skipped
            ]
