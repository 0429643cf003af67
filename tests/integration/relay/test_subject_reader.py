"""Reading one aggregate's subject in batches, from any version on, against a real server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import nats.errors
import pytest
from nats.js import api

from contracts import streams
from contracts.envelope import RecordedEvent
from runtime.grpc.health import NotReady
from runtime.jetstream import (
    Connection,
    KeysMissing,
    StreamReplaced,
    SubjectReader,
    connect,
    read_last_message,
    subject,
)
from runtime.jetstream.nats_client import Receive
from runtime.jetstream.stream import EPOCH_KEY, KEYS_KEY
from tests.support.harness.keys import FEED_KEY, get_ring, sign_events

HOT, OTHER = "a.b.hot", "a.b.other"
EPOCH = "epoch"


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    async with await connect(nats_url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        metadata = {EPOCH_KEY: EPOCH, KEYS_KEY: FEED_KEY.id}
        await connection.js.add_stream(
            api.StreamConfig(
                name=streams.JETSTREAM, subjects=[streams.SUBJECTS], allow_direct=True, metadata=metadata
            )
        )
        yield connection


def make_event(stream: str, version: int, size: int = 10) -> RecordedEvent:
    return RecordedEvent(stream, version, "a.v1.Happened", b"x" * size, datetime.now(UTC), version, {})


async def publish(connection: Connection, stream: str, *versions: int, size: int = 10) -> None:
    after = (await connection.js.stream_info(streams.JETSTREAM)).state.last_seq
    acks = [
        await connection.js.publish_async(message.subject, message.data, headers=message.headers)
        for message in sign_events(EPOCH, [make_event(stream, version, size) for version in versions], after)
    ]
    await asyncio.wait_for(asyncio.gather(*acks), 20)


async def forge(connection: Connection, headers: Mapping[str, str]) -> None:
    await connection.js.publish(streams.subject(HOT), b"forged", headers=dict(headers))


async def publish_mixed(connection: Connection, count: int) -> None:
    """Publish versions 1 to count, with events of another aggregate between them."""
    for start in range(1, count + 1, 100):
        await publish(connection, HOT, *range(start, min(start + 100, count + 1)))
        await publish(connection, OTHER, start)


async def read_versions(reader: SubjectReader) -> list[int]:
    """Return the versions up to the end."""
    versions: list[int] = []
    while batch := await reader.read_batch():
        versions += [int(message.headers["diptych-version"]) for message in batch]
    return versions


async def test_all_messages_are_read_in_batches(connection: Connection) -> None:
    await publish_mixed(connection, 1_000)
    reader = SubjectReader(connection, streams.subject(HOT))
    assert len(await reader.read_batch()) == subject.BATCH_SIZE
    assert not await reader.has_ended()
    assert await read_versions(reader) == list(range(subject.BATCH_SIZE + 1, 1_001))
    assert await reader.has_ended()
    await publish(connection, HOT, 1_001)
    assert not await reader.has_ended()
    assert await read_versions(reader) == [1_001]


@pytest.mark.parametrize("version", [1, 2, 777, 999, 1_000])
async def test_seek_finds_a_version_of_a_long_subject(connection: Connection, version: int) -> None:
    await publish_mixed(connection, 1_000)
    reader = SubjectReader(connection, streams.subject(HOT))
    await reader.seek(version)
    assert await read_versions(reader) == list(range(version, 1_001))


async def test_seek_finds_the_end(connection: Connection) -> None:
    await publish_mixed(connection, 1_000)
    reader = SubjectReader(connection, streams.subject(HOT))
    await reader.seek(1_001)
    assert await reader.read_batch() == []
    assert await reader.has_ended()


async def test_a_short_subject_is_read_from_its_first_message(connection: Connection) -> None:
    await publish(connection, HOT, 2, 1, 3)
    reader = SubjectReader(connection, streams.subject(HOT))
    await reader.seek(2)
    assert sorted(await read_versions(reader)) == [1, 2, 3]


async def test_foreign_messages_mislead_no_reader(connection: Connection) -> None:
    await publish(connection, HOT, *range(1, 400))
    last = await read_last_message(connection.js, streams.subject(HOT))
    assert last is not None
    for claim in ("1", "399", "9999", "garbage", "-7", ""):
        await forge(connection, {**last.headers, "diptych-version": claim, "ce-id": f"{HOT}@{claim}"})
    await publish(connection, HOT, *range(400, 600))
    await forge(connection, {**last.headers, "diptych-version": "1"})
    for version in (200, 399, 400, 401, 599, 600):
        reader = SubjectReader(connection, streams.subject(HOT))
        await reader.seek(version)
        events: list[RecordedEvent] = []
        while (read := await reader.read_events()) is not None:
            events += read
        found = [event.version for event in events if event.version >= version]
        assert found == list(range(version, 600))


async def test_a_reader_notices_that_the_stream_was_replaced(connection: Connection) -> None:
    await publish(connection, HOT, 1, 2)
    assert len(await SubjectReader(connection, streams.subject(HOT)).read_events() or []) == 2
    info = await connection.js.stream_info(streams.JETSTREAM)
    await connection.js.delete_stream(streams.JETSTREAM)
    await connection.js.add_stream(info.config.evolve(metadata={EPOCH_KEY: "new", KEYS_KEY: FEED_KEY.id}))
    (message,) = sign_events("new", [make_event(HOT, 1)], after=0)
    await connection.js.publish(message.subject, message.data, headers=message.headers)
    reader = SubjectReader(connection, streams.subject(HOT))
    with pytest.raises(StreamReplaced):  # rather than an end of the stream
        await reader.read_events()
    assert len(await SubjectReader(connection, streams.subject(HOT)).read_events() or []) == 1


@pytest.mark.parametrize("keys", ["", "unknown", "r,unknown", "p"])
async def test_a_stream_with_keys_that_are_unknown_here_is_not_read(
    connection: Connection, keys: str
) -> None:
    await publish(connection, HOT, 1)
    info = await connection.js.stream_info(streams.JETSTREAM)
    await connection.js.update_stream(info.config.evolve(metadata={EPOCH_KEY: EPOCH, KEYS_KEY: keys}))
    with pytest.raises(KeysMissing):
        await SubjectReader(connection, streams.subject(HOT)).read_events()
    with pytest.raises(NotReady):
        connection.check_connected()


async def test_an_empty_subject_has_ended(connection: Connection) -> None:
    await publish(connection, OTHER, 1)
    reader = SubjectReader(connection, streams.subject(HOT))
    await reader.seek(5)
    assert (await reader.read_batch(), await reader.has_ended()) == ([], True)


async def test_a_batch_is_bounded_in_bytes(connection: Connection) -> None:
    await publish(connection, HOT, *range(1, 6), size=600_000)
    reader = SubjectReader(connection, streams.subject(HOT))
    sizes = [len(await reader.read_batch()) for _ in range(5)]
    assert sum(sizes) == 5
    assert max(sizes) <= 2


@pytest.mark.parametrize("lost", [0, 3, 9])
async def test_a_batch_with_a_lost_message_fails(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    await publish(connection, HOT, *range(1, 11))
    subscribe = connection.subscribe

    async def lose(inbox: str, receive: Receive) -> Any:
        count = 0

        def receive_most(name: str, reply: str, data: bytes, headers: Mapping[str, str]) -> None:
            nonlocal count
            if count != lost:
                receive(name, reply, data, headers)
            count += 1

        return await subscribe(inbox, receive_most)

    monkeypatch.setattr(connection, "subscribe", lose)
    with pytest.raises(nats.errors.Error):
        await SubjectReader(connection, streams.subject(HOT)).read_batch()


async def test_a_missing_stream_is_an_error(connection: Connection) -> None:
    await connection.js.delete_stream(streams.JETSTREAM)
    with pytest.raises(nats.errors.Error):
        await SubjectReader(connection, streams.subject(HOT)).read_batch()
