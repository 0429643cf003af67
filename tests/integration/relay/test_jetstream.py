"""The connection to NATS, readers of the event stream, and the stream's identity, against a real server."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from nats.errors import ConnectionClosedError
from nats.js import api

from contracts import streams
from devstack.servers import Nats
from runtime.jetstream import (
    UNREACHABLE,
    Connection,
    Message,
    ReaderLost,
    StreamReader,
    SubjectReader,
    connect,
    read_stream_identity,
)
from runtime.jetstream.reader import MAX_BUFFERED_BYTES
from runtime.process.start_error import StartError
from runtime.telemetry.metrics import CONNECTIONS_LOST
from tests.support.harness.keys import get_ring
from tests.support.harness.waiting import until


@pytest.fixture
async def connection(own_nats: Nats) -> AsyncIterator[Connection]:
    async with await connect(own_nats.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        yield connection


async def make_stream(connection: Connection, epoch: str = "") -> str:
    epoch = epoch or str(uuid4())
    metadata = {"diptych-epoch": epoch, "diptych-incarnation": "i", "diptych-complete": "true"}
    await connection.js.add_stream(
        api.StreamConfig(
            name=streams.JETSTREAM, subjects=[streams.SUBJECTS], allow_direct=True, metadata=metadata
        )
    )
    return epoch


async def publish(connection: Connection, subjects: list[str]) -> None:
    acks = [
        await connection.js.publish_async(subject, str(n).encode(), headers={"n": str(n)})
        for n, subject in enumerate(subjects, 1)
    ]
    await asyncio.wait_for(asyncio.gather(*acks), 20)


async def read(reader: StreamReader, count: int) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(20):
        while len(messages) < count:
            messages += await reader.read_batch(500, 1)
    return messages


async def read_until_lost(reader: StreamReader, reason: str) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(20):
        with pytest.raises(ReaderLost, match=reason):
            while True:
                messages += await reader.read_batch(500, 0.1)
    return messages


async def test_a_reader_returns_every_message_in_order_from_its_start(connection: Connection) -> None:
    epoch = await make_stream(connection)
    await publish(connection, [f"diptych.events.{n % 16}.a.b.{n}" for n in range(7_000)])
    reader = await StreamReader.open(connection, epoch, 101)
    messages = await read(reader, 6_900)
    assert [message.sequence for message in messages] == list(range(101, 7_001))
    assert [message.pending for message in messages] == list(range(6_899, -1, -1))
    assert (messages[0].data, messages[0].headers, messages[0].subject) == (
        b"101",
        {"n": "101"},
        "diptych.events.4.a.b.100",
    )
    assert await reader.read_batch(500, 0.05) == []
    await reader.close()


async def test_a_reader_returns_only_messages_of_its_subjects(connection: Connection) -> None:
    epoch = await make_stream(connection)
    await publish(connection, [f"diptych.events.{n % 16}.a.{'bcd'[n % 3]}.{n}" for n in range(300)])
    reader = await StreamReader.open(
        connection, epoch, 1, ["diptych.events.0.a.b.*", "diptych.events.3.a.c.*"]
    )
    messages = await read(reader, 12)
    expected = [n + 1 for n in range(300) if (n % 16, n % 3) in ((0, 0), (3, 1))]
    assert [message.sequence for message in messages] == expected
    await reader.close()


async def test_an_idle_reader_renews_its_pull_requests(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.jetstream.reader.PULL_EXPIRY", 0.5)
    monkeypatch.setattr("runtime.jetstream.reader.HEARTBEAT", 0.2)
    epoch = await make_stream(connection)
    reader = await StreamReader.open(connection, epoch, 1)
    async with asyncio.timeout(20):
        for _ in range(12):
            assert await reader.read_batch(500, 0.2) == []
    await publish(connection, ["diptych.events.0.a.b.c"])
    assert len(await reader.read_batch(500, 0.1)) == 1
    await reader.close()


async def test_a_reader_is_lost_when_its_stream_is_recreated(connection: Connection) -> None:
    epoch = await make_stream(connection)
    reader = await StreamReader.open(connection, epoch, 1)
    await connection.js.delete_stream(streams.JETSTREAM)
    await make_stream(connection)
    await read_until_lost(reader, "409|503")
    await reader.close()


async def test_a_reader_of_another_epoch_is_not_opened(connection: Connection) -> None:
    with pytest.raises(ReaderLost):
        await StreamReader.open(connection, "none", 1)
    await make_stream(connection)
    with pytest.raises(ReaderLost):
        await StreamReader.open(connection, "another", 1)


async def test_a_reader_is_lost_when_its_consumer_is_deleted(connection: Connection) -> None:
    epoch = await make_stream(connection)
    reader = await StreamReader.open(connection, epoch, 1)
    (consumer,) = await connection.js.consumers_info(streams.JETSTREAM)
    await connection.js.delete_consumer(streams.JETSTREAM, consumer.name)
    await read_until_lost(reader, "409|503")
    await reader.close()


async def test_a_reader_is_lost_when_a_message_is_missing(connection: Connection) -> None:
    epoch = await make_stream(connection)
    reader = await StreamReader.open(connection, epoch, 1)
    (consumer,) = await connection.js.consumers_info(streams.JETSTREAM)
    # Another client takes messages from the same consumer, as if they had been lost on the way.
    inbox = connection.client.new_inbox()
    thief = await connection.client.subscribe(inbox)
    # The reader has requested 2,000 messages; the thief's request is next, then another one of the reader.
    await connection.client.publish(
        f"$JS.API.CONSUMER.MSG.NEXT.{streams.JETSTREAM}.{consumer.name}", b'{"batch":10}', inbox
    )
    await publish(connection, ["diptych.events.0.a.b.c"] * 4_000)
    messages = await read_until_lost(reader, "expected message")
    sequences = [message.sequence for message in messages]
    assert sequences == list(range(1, len(sequences) + 1))
    assert thief.pending_msgs > 0
    await reader.close()


async def test_a_reader_is_lost_when_the_server_restarts_and_another_continues(
    own_nats: Nats, connection: Connection
) -> None:
    epoch = await make_stream(connection)
    await publish(connection, ["diptych.events.0.a.b.c"] * 10)
    reader = await StreamReader.open(connection, epoch, 1)
    await read(reader, 10)
    CONNECTIONS_LOST.clear()
    await own_nats.kill()
    await read_until_lost(reader, "connection was lost")
    assert not connection.connected
    assert CONNECTIONS_LOST.sums == {("NATS",): 1}
    with pytest.raises(UNREACHABLE):
        await connection.js.stream_info(streams.JETSTREAM)
    await own_nats.start()
    await until(lambda: connection.connected)
    await reader.close()
    await publish(connection, ["diptych.events.0.a.b.c"])
    another = await StreamReader.open(connection, epoch, 11)
    assert [message.sequence for message in await read(another, 1)] == [11]
    await another.close()


async def test_a_reader_is_lost_when_the_server_stops_responding(
    own_nats: Nats, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.jetstream.reader.HEARTBEAT", 0.2)
    epoch = await make_stream(connection)
    reader = await StreamReader.open(connection, epoch, 1)
    own_nats.child.freeze()
    try:
        await read_until_lost(reader, "does not respond")
    finally:
        own_nats.child.thaw()
    await reader.close()


async def test_a_connection_is_made_when_the_server_starts_later(own_nats: Nats) -> None:
    await own_nats.kill()
    async with await connect(own_nats.url, "test", get_ring) as connection:
        assert not connection.connected
        await own_nats.start()
        await asyncio.wait_for(connection.wait_until_connected(), 10)
        assert connection.connected


async def fail_while_closed(connection: Connection) -> None:
    """Send requests until one is refused because the client is closed, between two connections."""

    async def is_refused() -> bool:
        try:
            await connection.js.account_info()
        except ConnectionClosedError:
            return True
        except UNREACHABLE:
            pass
        return False

    await until(is_refused)


async def test_requests_are_answered_after_one_while_the_client_was_closed(own_nats: Nats) -> None:
    async with await connect(own_nats.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        await connection.client.close()  # as it does by itself after some errors of the server
        await fail_while_closed(connection)
        await until(lambda: connection.sessions == 2)
        assert connection.clients == 2
        await connection.js.account_info()


@pytest.mark.long
async def test_requests_are_answered_after_a_start_beside_a_frozen_server(own_nats: Nats) -> None:
    own_nats.child.freeze()
    try:
        connection = await connect(own_nats.url, "test", get_ring)
        await fail_while_closed(connection)
    finally:
        own_nats.child.thaw()
    async with connection:
        await connection.wait_until_connected()
        await connection.js.account_info()


async def test_a_malformed_url_is_rejected_at_once() -> None:
    with pytest.raises(StartError):
        await connect("nats://host:port:more", "test")


async def test_one_aggregates_events_are_read_from_its_own_subject(connection: Connection) -> None:
    await make_stream(connection)
    await publish(connection, [f"diptych.events.0.a.b.{n % 3}" for n in range(30)])
    reader = SubjectReader(connection, "diptych.events.0.a.b.1", start=11)
    messages = await reader.read_batch()
    assert [message.sequence for message in messages] == [11, 14, 17, 20, 23, 26, 29]
    assert (messages[0].data, messages[0].headers["n"]) == (b"11", "11")


async def test_a_streams_identity_and_whether_it_is_intact_can_be_read(connection: Connection) -> None:
    assert await read_stream_identity(connection.js) is None
    epoch = await make_stream(connection)
    empty = await read_stream_identity(connection.js)
    assert empty is not None
    assert (empty.epoch, empty.incarnation, empty.complete, empty.intact) == (epoch, "i", True, True)
    await publish(connection, ["diptych.events.0.a.b.c"] * 10)
    full = await read_stream_identity(connection.js)
    assert full is not None
    assert (full.first_sequence, full.last_sequence, full.intact) == (1, 10, True)
    await connection.js.delete_msg(streams.JETSTREAM, 4)
    damaged = await read_stream_identity(connection.js)
    assert damaged is not None
    assert not damaged.intact
    await connection.js.purge_stream(streams.JETSTREAM)
    purged = await read_stream_identity(connection.js)
    assert purged is not None
    assert not purged.intact


@pytest.mark.long
async def test_a_backlog_of_large_messages_leaves_the_connection_open(connection: Connection) -> None:
    """The server closes a connection, with all its readers, for which more than 64 MiB wait."""
    epoch, count = await make_stream(connection), 600
    for number in range(count):
        await connection.js.publish(f"diptych.events.0.a.b.{number}", b"x" * 150_000)
    reader = await StreamReader.open(connection, epoch, 1)
    messages: list[int] = []
    while len(messages) < count:
        batch = await reader.read_batch(500, 1)
        assert sum(len(message.data) for message in batch) < 2 * MAX_BUFFERED_BYTES
        messages += [message.sequence for message in batch]
        time.sleep(0.01)  # noqa: ASYNC251 - a reader that computes does not read
    assert messages == list(range(1, count + 1))
    assert (connection.sessions, connection.connected) == (1, True)
    await reader.close()


async def test_the_largest_message_that_the_server_accepts_is_read(connection: Connection) -> None:
    epoch = await make_stream(connection)
    subject = f"diptych.events.0.a.b.{'n' * 60}"
    for size in (connection.client.max_payload, 1, connection.client.max_payload):
        await connection.js.publish(subject, b"x" * size)
    reader = await StreamReader.open(connection, epoch, 1)
    assert [len(message.data) for message in await read(reader, 3)] == [2**20, 1, 2**20]
    await reader.close()
