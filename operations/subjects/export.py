"""All that is held on a person, as JSON: events in clear, views, sagas, and the record of their calls.

How it works. One scan of `events` finds those of any type that name the person. Of the streams that hold
personal data of theirs, all events are exported, with views and sagas of the same ids. Of other streams,
such as the account of another person, only the events that name the person are.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts import streams
from contracts.envelope import RecordedEvent, parse_metadata
from contracts.event_types import EventTypes
from contracts.generations import decode_serving
from contracts.personal_data import list_subjects
from contracts.signed_tokens import GetKeyRing
from contracts.subject_keys import RingWrapper
from contracts.view_layout import View
from runtime.postgres import create_engine
from runtime.redis.pool import open_client
from runtime.stored_subject_keys import read_keys
from runtime.subject_keys import SubjectKeys

_EVENT = "stream, version, type, data, recorded_at, position, metadata::text"
# A string stands in the bytes of a message as it is, so this finds candidates.
SCAN = text(f"""
SELECT {_EVENT} FROM events
WHERE position(:needle in data) > 0 OR strpos(metadata::text, :quoted) > 0 ORDER BY position
""")  # noqa: S608 - composed of constants
READ = text(f"SELECT {_EVENT} FROM events WHERE stream = ANY(:streams) ORDER BY stream, version")  # noqa: S608
ROWS = {
    "commands": text("""
SELECT recorded_at, caller, on_behalf_of, request_id, type, outcome, stream FROM audit
WHERE caller = :subject OR on_behalf_of = :subject ORDER BY recorded_at
"""),
    "refused_calls": text("""
SELECT recorded_at, method, reason, peer FROM refused_calls WHERE caller = :subject ORDER BY recorded_at
"""),
    "reads": text("""
SELECT recorded_at, caller, on_behalf_of, method, ids FROM reads
WHERE caller = :subject OR on_behalf_of = :subject ORDER BY recorded_at
"""),
    "key": text("SELECT created_at, destroyed_at, reason FROM subject_keys WHERE subject = :subject"),
}
"""Rows about the person, by their name in the export."""
READ_SAGAS = text("SELECT saga, id, status, began_at, state::text AS state FROM sagas WHERE id = ANY(:ids)")
RECORD = text("""
INSERT INTO operator_acts (subject, act, target, request, reason)
VALUES (:operator, 'ExportSubject', :subject, '{}', :reason)
""")


class SubjectExport:
    """One export.

    Args:
        database_url: of a user who may read all tables, and record the act.
        redis_url: of the views.
        get_ring: returns the keys.
        types: the events of each context, by the context's name.
        views: all views.
    """

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        get_ring: GetKeyRing,
        types: dict[str, EventTypes],
        views: Iterable[View],
    ) -> None:
        self._engine = create_engine(database_url, command_timeout=None)
        self._redis_url = redis_url
        self._keys = SubjectKeys(RingWrapper(get_ring))
        self._types = types
        self._views = list(views)

    async def run(self, subject: str, reason: str, operator: str) -> dict[str, Any]:
        """Return all that is held on a person; the act is recorded first.

        Args:
            subject: the person's id.
            reason: why; it is recorded.
            operator: who; it is recorded.
        """
        try:
            async with self._engine.begin() as connection:
                values = {"operator": operator, "subject": subject, "reason": reason}
                await connection.execute(RECORD, values)
            async with self._engine.connect() as connection:
                return await self._collect(connection, subject)
        finally:
            await self._engine.dispose()

    async def _collect(self, connection: AsyncConnection, subject: str) -> dict[str, Any]:
        values = {"needle": subject.encode(), "quoted": msgspec.json.encode(subject).decode()}
        named = await self._read_events(connection, SCAN, values)
        own = sorted({event.stream for event in named if subject in list_subjects(event)})
        events = await self._read_events(connection, READ, {"streams": own})
        events += [event for event in named if event.stream not in own]
        ids = sorted({streams.aggregate_id(name) for name in own} | {subject})
        rows = {
            name: [dict(row) for row in (await connection.execute(query, {"subject": subject})).mappings()]
            for name, query in ROWS.items()
        }
        sagas = (await connection.execute(READ_SAGAS, {"ids": ids})).mappings()
        return {
            "subject": subject,
            "events": [self._describe(event) for event in events],
            "views": await self._read_views(own, subject),
            "sagas": [dict(row) | {"state": msgspec.Raw(row["state"].encode())} for row in sagas],
            **rows,
        }

    async def _read_events(
        self, connection: AsyncConnection, query: Any, values: dict[str, Any]
    ) -> list[RecordedEvent]:
        rows = (await connection.execute(query, values)).all()
        return list(await self._keys.open([_to_event(row) for row in rows], partial(read_keys, connection)))

    def _describe(self, event: RecordedEvent) -> dict[str, Any]:
        """Return an event with its fields, as far as this release can decode it."""
        try:
            message = self._types[event.stream.partition(".")[0]].decode(event)
            fields: Any = MessageToDict(message, preserving_proto_field_name=True)
        except Exception as error:  # any event may be one that is not installed here, or damaged
            fields = {"error": f"{type(error).__name__}: {error}"}
        return {
            "event": event.id,
            "type": event.type,
            "recorded_at": event.recorded_at,
            "metadata": event.metadata,
            "fields": fields,
        }

    async def _read_views(self, own: Sequence[str], subject: str) -> list[dict[str, Any]]:
        """Return the views of streams, and those that are about the person as a whole."""
        wanted = [
            (view, streams.aggregate_id(name))
            for name in own
            for view in self._views
            if streams.stream_type(name) in view.source_streams
        ]
        wanted += [(view, subject) for view in self._views if (view, subject) not in wanted]
        found = []
        async with open_client(self._redis_url) as redis:
            for view, id_ in wanted:
                serving: Any = await redis.get(view.serving)
                data: Any = await redis.hget(view.at(decode_serving(serving)).key(id_), "data")
                if data:
                    message = view.message.FromString(data)
                    fields = MessageToDict(message, preserving_proto_field_name=True)
                    found.append({"view": view.projection, "id": id_, "fields": fields})
        return found


def _to_event(row: Any) -> RecordedEvent:
    stream, version, type_, data, recorded_at, position, metadata = row
    return RecordedEvent(stream, version, type_, data, recorded_at, position, parse_metadata(metadata))
