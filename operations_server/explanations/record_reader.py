"""Reads the records of streams and requests, each read bounded whatever the history."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.envelope import RecordedEvent, parse_metadata
from operations_server.records.versions import bisect_version
from runtime.stored_subject_keys import read_keys
from runtime.subject_keys import SubjectKeys

FIRST_EVENTS, LATEST_EVENTS = 20, 100
"""Events of a long stream that are read: so many of its first, and of its latest."""
MAX_EVENT_BYTES = 64 * 1024
"""Bytes of an event that are read; of a larger one only the type is known."""
MAX_EVENTS_OF_COMMAND = 20
"""Events of one command in one stream that are read, the latest."""

_COLUMNS = f"""
position, stream, version, type, octet_length(data) AS size, metadata::text AS metadata, recorded_at,
CASE WHEN octet_length(data) <= {MAX_EVENT_BYTES} THEN data END AS data
"""
READ_STREAMS = text("SELECT id, version FROM streams WHERE id = ANY(:ids)")
READ_EVENTS = text(f"""
SELECT {_COLUMNS} FROM events
WHERE stream = :stream AND (version <= :first OR version > :after) AND version <= :until
ORDER BY version LIMIT :most
""")  # noqa: S608 - composed of constants
IS_PENDING = text("SELECT EXISTS (SELECT FROM outbox WHERE position = :position AND sequence IS NULL)")
READ_TIME = text("SELECT recorded_at FROM events WHERE stream = :stream AND version = :version")
READ_NOW = text("SELECT clock_timestamp()")
# Not `->>`, which fails for metadata with a lone surrogate.
READ_EVENTS_OF_COMMANDS = text(f"""
SELECT {_COLUMNS} FROM unnest(CAST(:streams AS text[]), CAST(:versions AS bigint[]), CAST(:ids AS text[]))
  AS k(of, latest, id)
JOIN events e ON e.stream = k.of AND e.version <= k.latest AND e.version > k.latest - {MAX_EVENTS_OF_COMMAND}
WHERE strpos(e.metadata::text, k.id) > 0 ORDER BY position
""")  # noqa: S608 - composed of constants
READ_ANSWERS = text("""
SELECT r.caller, r.request_id, r.type, r.outcome, r.rejection::text AS rejection, r.receipt::text AS receipt,
  r.recorded_at
FROM unnest(CAST(:callers AS text[]), CAST(:ids AS uuid[])) AS k(caller, request_id)
JOIN requests r USING (caller, request_id)
""")

RequestKey = tuple[str, str]
"""The caller and the request id."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event, and its size; the bytes of one that is too large to be shown are not read."""

    event: RecordedEvent
    size: int

    @property
    def is_read(self) -> bool:
        return len(self.event.data) == self.size

    @property
    def key(self) -> RequestKey:
        """Of the command that caused it; empty strings for what its metadata lacks."""
        metadata = self.event.metadata
        return metadata.get("actor", ""), metadata.get("causation_id", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """The recorded answer to a command."""

    caller: str
    request_id: str
    command: str
    outcome: str
    details: Mapping[str, Any]
    """Of a rejection."""
    versions: Mapping[str, int]
    """The version of each of its streams after an accepted command."""
    recorded_at: datetime

    @property
    def is_accepted(self) -> bool:
        return self.outcome == "ACCEPTED"

    @property
    def key(self) -> RequestKey:
        return self.caller, self.request_id


class RecordReader:
    """Reads streams, events, and the answers to requests.

    Args:
        database: of the write model.
        keys: open events; None to leave what is sealed as it is.
    """

    def __init__(self, database: AsyncEngine, keys: SubjectKeys | None = None) -> None:
        self._database = database
        self._keys = keys

    async def read_now(self) -> datetime:
        """Return the time by PostgreSQL's clock."""
        async with self._database.connect() as connection:
            now: datetime = (await connection.execute(READ_NOW)).scalar_one()
            return now

    async def read_versions(self, streams: Collection[str]) -> dict[str, int]:
        """Return the versions of those of the streams that exist."""
        async with self._database.connect() as connection:
            rows = await connection.execute(READ_STREAMS, {"ids": list(streams)})
            return {row.id: row.version for row in rows}

    async def read_time(self, stream: str, version: int) -> datetime | None:
        """Return the time of an event; None if there is none of this version."""
        async with self._database.connect() as connection:
            time: datetime | None = await connection.scalar(READ_TIME, {"stream": stream, "version": version})
            return time

    async def is_published(self, position: int) -> bool:
        """Return whether an event has left the outbox."""
        async with self._database.connect() as connection:
            return not await connection.scalar(IS_PENDING, {"position": position})

    async def find_version(self, stream: str, latest: int, time: datetime) -> int:
        """Return the version of the last event that was recorded at a time or before; 0 if none was."""
        return await bisect_version(partial(self.read_time, stream), latest, time)

    async def read_ends(self, stream: str, until: int) -> list[StoredEvent]:
        """Return the first and the latest events of a stream, up to a version."""
        parameters = {
            "stream": stream,
            "first": FIRST_EVENTS,
            "after": until - LATEST_EVENTS,
            "until": until,
            "most": FIRST_EVENTS + LATEST_EVENTS,
        }
        return await self._read_events(READ_EVENTS, parameters)

    async def read_event(self, stream: str, version: int) -> StoredEvent | None:
        parameters = {"stream": stream, "first": 0, "after": version - 1, "until": version, "most": 1}
        events = await self._read_events(READ_EVENTS, parameters)
        return events[0] if events else None

    async def read_events_of(self, answers: Collection[Answer]) -> list[StoredEvent]:
        """Return the events of accepted commands in all of their streams."""
        rows = [
            (stream, version, each.request_id)
            for each in answers
            for stream, version in each.versions.items()
        ]
        if not rows:
            return []
        streams, versions, ids = (list(column) for column in zip(*rows, strict=True))
        parameters = {"streams": streams, "versions": versions, "ids": ids}
        events = await self._read_events(READ_EVENTS_OF_COMMANDS, parameters)
        keys = {each.key for each in answers}
        return [each for each in events if each.key in keys]

    async def read_answers(self, keys: Collection[RequestKey]) -> dict[RequestKey, Answer]:
        """Return the answers that are still kept, by caller and request id."""
        valid = [(caller, id_) for caller, id_ in keys if is_uuid(id_)]
        parameters = {"callers": [caller for caller, _ in valid], "ids": [UUID(id_) for _, id_ in valid]}
        if not valid:
            return {}
        async with self._database.connect() as connection:
            answers = [_to_answer(row) for row in await connection.execute(READ_ANSWERS, parameters)]
        return {each.key: each for each in answers}

    async def _read_events(self, query: Any, parameters: Mapping[str, Any]) -> list[StoredEvent]:
        async with self._database.connect() as connection:
            rows = (await connection.execute(query, parameters)).all()
            events: Sequence[RecordedEvent] = [_to_event(row) for row in rows]
            if self._keys is not None:
                events = await self._keys.open(events, partial(read_keys, connection))
        pairs = zip(rows, events, strict=True)
        return [StoredEvent(each, row.size if row.data is None else len(each.data)) for row, each in pairs]


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _to_event(row: Any) -> RecordedEvent:
    metadata = parse_metadata(row.metadata)
    data = row.data or b""
    return RecordedEvent(row.stream, row.version, row.type, data, row.recorded_at, row.position, metadata)


def _to_answer(row: Any) -> Answer:
    return Answer(
        row.caller,
        str(row.request_id),
        row.type,
        row.outcome,
        _decode_object(row.rejection, "details"),
        _decode_versions(row.receipt),
        row.recorded_at,
    )


def _decode_object(document: str | None, name: str) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(document or "{}").get(name, {})
    except (msgspec.DecodeError, AttributeError):  # a row that another release wrote
        return {}
    return value if isinstance(value, dict) else {}


def _decode_versions(document: str | None) -> Mapping[str, int]:
    try:
        return msgspec.json.decode(document or "{}", type=dict[str, int])
    except msgspec.MsgspecError:
        return {}
