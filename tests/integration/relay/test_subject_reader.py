"""Reading one aggregate's subject in batches, from any version on, against a real server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import nats.errors
import pytest
from nats.js import api

from contracts import streams
from runtime.jetstream import Connection, SubjectReader, connect, subject
from runtime.jetstream.nats_client import Receive

HOT, OTHER = "diptych.events.0.a.b.hot", "diptych.events.0.a.b.other"


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    async with await connect(nats_url, "test") as connection:
        await connection.wait_until_connected()
        await connection.js.add_stream(
            api.StreamConfig(name=streams.JETSTREAM, subjects=[streams.SUBJECTS], allow_direct=True)
        )
        yield connection


async def publish(connection: Connection, subject: str, *versions: int | str, size: int = 10) -> None:
    acks = [
        await connection.js.publish_async(subject, b"x" * size, headers={"diptych-version": str(version)})
        for version in versions
    ]
    await asyncio.wait_for(asyncio.gather(*acks), 20)


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
    reader = SubjectReader(connection, HOT)
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
    reader = SubjectReader(connection, HOT)
    await reader.seek(version)
    assert await read_versions(reader) == list(range(version, 1_001))


async def test_seek_finds_the_end(connection: Connection) -> None:
    await publish_mixed(connection, 1_000)
    reader = SubjectReader(connection, HOT)
    await reader.seek(1_001)
    assert await reader.read_batch() == []
    assert await reader.has_ended()


async def test_a_short_subject_is_read_from_its_first_message(connection: Connection) -> None:
    await publish(connection, HOT, 2, 1, 3)
    reader = SubjectReader(connection, HOT)
    await reader.seek(2)
    assert sorted(await read_versions(reader)) == [1, 2, 3]


async def test_seek_passes_over_messages_that_no_relay_has_published(connection: Connection) -> None:
    await publish(connection, HOT, *range(1, 400), "garbage", "", "-7", *range(400, 600))
    for version in (399, 400, 401):
        reader = SubjectReader(connection, HOT)
        await reader.seek(version)
        first = next(
            message for message in await reader.read_batch() if message.headers["diptych-version"].isdecimal()
        )
        assert int(first.headers["diptych-version"]) == version


async def test_an_empty_subject_has_ended(connection: Connection) -> None:
    await publish(connection, OTHER, 1)
    reader = SubjectReader(connection, HOT)
    await reader.seek(5)
    assert (await reader.read_batch(), await reader.has_ended()) == ([], True)


async def test_a_batch_is_bounded_in_bytes(connection: Connection) -> None:
    await publish(connection, HOT, *range(1, 6), size=600_000)
    reader = SubjectReader(connection, HOT)
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
        await SubjectReader(connection, HOT).read_batch()


async def test_a_missing_stream_is_an_error(connection: Connection) -> None:
    await connection.js.delete_stream(streams.JETSTREAM)
    with pytest.raises(nats.errors.Error):
        await SubjectReader(connection, HOT).read_batch()
