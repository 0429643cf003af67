"""Forgets a person: destroys their key, and tells all readers of their streams.

How it works. The key is destroyed first, and its row stays as the receipt. Then each stream with data that
it sealed gets an event, in slices of one transaction each, by which projectors fold views again without the
data. Called again, after a kill, it goes on: it appends only to streams that lack the event. Command
servers use a key that they have for KEPT seconds more. What they seal with it meanwhile can be read by
nobody either, but its streams need the event, so a second pass follows then.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec
from diptych.privacy.v1.privacy_pb2 import SubjectForgotten
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.kernel.clock import choose_time
from command_server.kernel.ports import Changes, EventRow, StoreConflict, StoredStream, StreamRow
from command_server.postgres.event_store import PostgresEventStore
from contracts.audit.digests import digest_event
from contracts.forgetting import FORGOTTEN
from contracts.streams import stream_type
from operations.subjects.streams import PersonalStreams, find_streams
from runtime.backoff import compute_pause
from runtime.postgres import create_engine
from runtime.subject_keys import KEPT

MAX_USE = KEPT + 5.0
"""Seconds after which no process seals or opens with a key that was destroyed, transactions included."""
SLICE = 200
"""Streams that get the event in one transaction."""
ATTEMPTS = 20
"""Attempts to write a slice, while others write to its streams."""
DESTROY = text("""
UPDATE subject_keys SET wrapped = NULL, destroyed_at = now(), destroyed_by = :operator, reason = :reason
WHERE subject = :subject AND wrapped IS NOT NULL
""")
READ_RECEIPT = text("""
SELECT subject, id, destroyed_at, destroyed_by, reason FROM subject_keys WHERE subject = :subject
""")
READ_RECEIPTS = text("""
SELECT subject, id, destroyed_at, destroyed_by, reason FROM subject_keys WHERE wrapped IS NULL
ORDER BY destroyed_at, subject
""")
RECORD = text("""
INSERT INTO operator_acts (subject, act, target, request, reason)
VALUES (:operator, 'ForgetSubject', :subject, '{}', :reason)
""")
DROP_SNAPSHOTS = text("DELETE FROM snapshots WHERE stream = ANY(:streams)")
# Its keys may be made of personal data.
DROP_INDEX_ENTRIES = text("""
DELETE FROM event_index i USING events e WHERE e.position = i.position AND e.stream = ANY(:streams)
""")


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a key was destroyed."""

    subject: str
    key_id: bytes
    destroyed_at: datetime | None
    """None if it exists."""
    destroyed_by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was forgotten."""

    receipt: Receipt | None
    """None if nothing of the person was sealed."""
    streams: PersonalStreams


async def forget(
    database_url: str,
    types: Sequence[str],
    subject: str,
    reason: str,
    operator: str,
    wait: float = MAX_USE,
) -> Forgotten:
    """Destroy the key of a person, and append an event to each stream with their data.

    Args:
        database_url: of the owner.
        types: the full names of all installed types of events.
        subject: the person's id.
        reason: why; it is recorded.
        operator: who; it is recorded.
        wait: seconds until no process uses the key any more.
    """
    engine, store = create_engine(database_url, command_timeout=None), PostgresEventStore(database_url)
    try:
        async with engine.begin() as connection:
            values = {"subject": subject, "operator": operator, "reason": reason}
            was_destroyed = bool((await connection.execute(DESTROY, values)).rowcount)
            if was_destroyed:
                await connection.execute(RECORD, values)
        receipt = await _read_receipt(engine, subject)
        if receipt is None:
            return Forgotten(None, await find_streams(engine, types, subject, b""))
        end = monotonic() + (wait if was_destroyed else 0.0)
        found = await _end_all(engine, store, types, receipt)
        if was_destroyed:
            await asyncio.sleep(max(0.0, end - monotonic()))
            found = await _end_all(engine, store, types, receipt)
        return Forgotten(receipt, found)
    finally:
        await store.close()
        await engine.dispose()


async def _end_all(
    engine: AsyncEngine, store: PostgresEventStore, types: Sequence[str], receipt: Receipt
) -> PersonalStreams:
    """Append the event to all streams that lack it, and remove what is derived from sealed data."""
    found = await find_streams(engine, types, receipt.subject, receipt.key_id)
    streams = sorted(found.sealed)
    for at in range(0, len(streams), SLICE):
        slice_ = streams[at : at + SLICE]
        if left := [name for name in slice_ if name not in found.ended]:
            await _append_repeatedly(store, left, receipt)
        async with engine.begin() as connection:
            for statement in (DROP_SNAPSHOTS, DROP_INDEX_ENTRIES):
                await connection.execute(statement, {"streams": slice_})
    return found


async def read_receipts(database_url: str) -> list[Receipt]:
    """Return the receipts of all persons that were forgotten."""
    engine = create_engine(database_url)
    try:
        async with engine.connect() as connection:
            return [Receipt(*row) for row in await connection.execute(READ_RECEIPTS)]
    finally:
        await engine.dispose()


async def _read_receipt(engine: AsyncEngine, subject: str) -> Receipt | None:
    async with engine.connect() as connection:
        row = (await connection.execute(READ_RECEIPT, {"subject": subject})).one_or_none()
    return None if row is None else Receipt(*row)


async def _append_repeatedly(store: PostgresEventStore, streams: Sequence[str], receipt: Receipt) -> None:
    for attempt in range(ATTEMPTS):
        try:
            await _append(store, streams, receipt)
            return
        except StoreConflict:  # a command server is writing to one of them
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(compute_pause(attempt, 0.05, 1.0))


async def _append(store: PostgresEventStore, streams: Sequence[str], receipt: Receipt) -> None:
    metadata = {
        "actor": receipt.destroyed_by or "",
        "command": FORGOTTEN,
        "correlation_id": (request_id := str(uuid4())),
        "causation_id": request_id,
    }
    event = SubjectForgotten(subject_id=receipt.subject, key_id=receipt.key_id)
    event.forgotten_at.FromDatetime(receipt.destroyed_at)  # type: ignore[arg-type]  # its key was destroyed
    async with store.begin() as transaction:
        rows, lookup = await transaction.lock_and_find(streams, [])
        changes = Changes()
        for name, row in rows.items():
            _add(changes, name, row, event.SerializeToString(), metadata, lookup.now)
        await transaction.commit(changes)


def _add(
    changes: Changes, name: str, row: StoredStream, data: bytes, metadata: dict[str, Any], now: datetime
) -> None:
    time, ahead = choose_time(now, {name: row})  # type: ignore[dict-item]  # of a frozen row
    if name in ahead:
        metadata = metadata | {"time_set_aside": ahead[name].isoformat()}
    document, version = msgspec.json.encode(metadata).decode(), row.version + 1
    digest = digest_event(row.digest or b"", name, version, FORGOTTEN, time, document, data)
    changes.events.append(EventRow(name, version, FORGOTTEN, data, document, time, digest))
    changes.streams.append(
        StreamRow(name, stream_type(name), version, time, None, row.fingerprint, is_new=False, digest=digest)
    )
