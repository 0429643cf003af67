"""Reads of single streams, and of the ends of streams, from JetStream."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.dispatch.preceding_inputs import ReadStreamEnds
from process_manager.engine import ReadStream
from process_manager.queries.awaited_events import ReadStreamEnd, StreamEnd
from process_manager.queries.staleness import ReadEnds
from runtime.jetstream import (
    Connection,
    Message,
    StreamReplaced,
    SubjectReader,
    read_last_message,
    read_stream_identity,
)

MAX_BATCH = 200
"""Messages of one read."""
MAX_VERSION = 2**63 - 1
MAX_READERS = 64
"""Readers of streams that are kept for the next slice of their stream."""


class ReplicaBehind(Exception):
    """The server that answered lacks messages that the leader of the stream has; try again."""


def read_stream_from(connection: Connection) -> ReadStream:
    """Return a function that reads the next events of one stream that JetStream stores, from a version on."""
    readers: OrderedDict[tuple[str, int], SubjectReader] = OrderedDict()
    """By stream and next version: the reader of a slice need not seek for the following one."""

    async def read_stream(stream: str, version: int) -> list[RecordedEvent]:
        try:
            return await read_once(stream, version)
        except StreamReplaced:  # which the reader has noticed by this
            return await read_once(stream, version)

    async def read_once(stream: str, version: int) -> list[RecordedEvent]:
        reader = readers.pop((stream, version), None)
        events = await _read_on(reader, version) if reader else []
        if reader is None or not events or events[0].version != version:
            # A stream that was recreated has other sequences.
            reader = SubjectReader(connection, streams.subject(stream))
            await reader.seek(version)
            events = await _read_on(reader, version)
        if events:
            readers[stream, events[-1].version + 1] = reader
        if len(readers) > MAX_READERS:
            readers.popitem(last=False)
        return events

    return read_stream


async def _read_on(reader: SubjectReader, version: int) -> list[RecordedEvent]:
    """Return the next events of this version or a later one; none if the stream has none.

    Raises:
        ReplicaBehind: the server that answered lacks messages that the leader of the stream has.
    """
    while (read := await reader.read_events(MAX_BATCH)) is not None:
        events = [event for event in read if event.version >= version]
        if events:
            return sorted(events, key=lambda event: event.version)
    if not await reader.has_ended():
        raise ReplicaBehind(f"events from version {version} on cannot be read yet")
    return []


def read_stream_end_from(connection: Connection) -> ReadStreamEnd:
    """Return a function that reads the end of one stream in JetStream."""
    read_ends = read_stream_ends_from(connection)

    async def read_stream_end(stream: str) -> StreamEnd | None:
        subject = streams.subject(stream)
        return (await read_ends([subject])).get(subject)

    return read_stream_end


def read_stream_ends_from(connection: Connection) -> ReadStreamEnds:
    """Return a function that reads the last messages of several subjects, with wildcards or without.

    It returns none of them while the stream is recreated: a sequence could be of either epoch.
    """

    async def read_stream_ends(subjects: Collection[str]) -> Mapping[str, StreamEnd | None]:
        identity = await read_stream_identity(connection.js)
        reads = (read_last_message(connection.js, subject) for subject in subjects)
        messages = dict(zip(subjects, await asyncio.gather(*reads), strict=True))
        again = await read_stream_identity(connection.js)
        if identity is None or again is None or identity.epoch != again.epoch:
            return {}
        connection.feed.check(identity)
        return {
            subject: await _find_end(connection, identity.epoch, subject, message) if message else None
            for subject, message in messages.items()
        }

    return read_stream_ends


def read_ends_from(connection: Connection) -> ReadEnds:
    """Return a function that asks JetStream's leader for the ends of stream types and partitions."""

    async def read_ends(ends: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        subjects = [streams.partition_subject(partition, stream_type) for stream_type, partition in ends]
        reads = (read_last_message(connection.js, subject) for subject in subjects)
        messages = zip(ends, await asyncio.gather(*reads), strict=True)
        return {end: message.sequence if message else 0 for end, message in messages}

    return read_ends


async def _find_end(connection: Connection, epoch: str, subject: str, message: Message) -> StreamEnd:
    """Return the end of a stream: the place of its last message, and the version of its last event."""
    (event,) = await connection.feed.decode_at([message], epoch)
    version = event.version if event else await _find_version(connection, subject)
    return StreamEnd(epoch, message.sequence, version)


async def _find_version(connection: Connection, subject: str) -> int:
    """Return the version of a subject's last event, which foreign messages follow; 0 for a pattern."""
    if "*" in subject:
        return 0
    reader, version = SubjectReader(connection, subject), 0
    await reader.seek(MAX_VERSION)
    while (events := await reader.read_events()) is not None:
        version = max([version, *(event.version for event in events)])
    return version
