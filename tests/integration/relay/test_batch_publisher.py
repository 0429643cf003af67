"""Fenced batches: a stream holds a prefix of each, whatever happens to the messages."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError

from devstack.servers import Nats
from runtime.jetstream import (
    BatchIncomplete,
    BatchPublisher,
    Connection,
    Fenced,
    OutgoingMessage,
    batch_publisher,
    connect,
)
from tests.support.harness.waiting import until


class FaultyPublisher(BatchPublisher):
    """Calls `before` ahead of each message; if that returns False, the message is lost."""

    async def before(self, after: int) -> bool:
        return True

    async def _send(self, message: OutgoingMessage, after: int, reply: str) -> None:
        if await self.before(after):
            await super()._send(message, after, reply)


def make_messages(count: int, name: str = "m") -> list[OutgoingMessage]:
    return [OutgoingMessage("s.x", f"{name}{n}".encode(), {"name": f"{n}"}) for n in range(1, count + 1)]


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    async with await connect(nats_url, "publisher") as connection:
        await connection.wait_until_connected()
        await create_stream(connection)
        yield connection


async def create_stream(connection: Connection) -> None:
    config = api.StreamConfig(name="S", subjects=["s.>"], allow_batched=True)
    await connection.js.add_stream(config)


async def read_data(connection: Connection) -> list[str]:
    last = (await connection.js.stream_info("S")).state.last_seq
    messages = [await connection.js.get_msg("S", seq=sequence) for sequence in range(1, last + 1)]
    return [(message.data or b"").decode() for message in messages]


@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
@pytest.mark.parametrize("singly", [False, True], ids=["batch", "singly"])
async def test_messages_are_stored_in_order(connection: Connection, size: int, singly: bool) -> None:
    publisher = BatchPublisher(connection)
    publish = publisher.publish_singly if singly else publisher.publish
    assert await publish(make_messages(size, "a"), 0) == size
    assert await publish(make_messages(size, "b"), size) == 2 * size
    expected = [f"{name}{n}" for name in "ab" for n in range(1, size + 1)]
    if size < 10:
        assert await read_data(connection) == expected
    assert (await connection.js.stream_info("S")).state.last_seq == 2 * size
    last = await connection.js.get_msg("S", seq=2 * size)
    assert (last.data, (last.headers or {})["name"]) == (f"b{size}".encode(), f"{size}")


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("singly", [False, True], ids=["batch", "singly"])
@pytest.mark.parametrize("expected", [0, 2])
async def test_a_wrong_expectation_stores_nothing(
    connection: Connection, size: int, singly: bool, expected: int
) -> None:
    publisher = BatchPublisher(connection)
    await publisher.publish(make_messages(1), 0)
    publish = publisher.publish_singly if singly else publisher.publish
    with pytest.raises(Fenced):
        await publish(make_messages(size), expected)
    assert await read_data(connection) == ["m1"]
    assert await publish(make_messages(size, "n"), 1) == 1 + size


@pytest.mark.parametrize("place", [1, 2, 3, 4])
async def test_another_clients_message_ends_the_batch(connection: Connection, place: int) -> None:
    """The messages behind the refused one would fit, were they single messages."""

    class Interrupted(FaultyPublisher):
        async def before(self, after: int) -> bool:
            if after == place - 1:
                await until_stored(connection, after)
                await connection.js.publish("s.x", b"stranger")
            return True

    with pytest.raises((Fenced, BatchIncomplete)):
        await Interrupted(connection).publish(make_messages(5), 0)
    own = [f"m{n}" for n in range(1, place)]
    assert await read_data(connection) == [*own, "stranger"]
    assert await BatchPublisher(connection).publish(make_messages(2), place) == place + 2


async def until_stored(connection: Connection, count: int) -> None:
    async def are_stored() -> bool:
        return (await connection.js.stream_info("S")).state.last_seq == count

    await until(are_stored)


@pytest.mark.parametrize("lost", [1, 2, 4])
async def test_a_lost_message_ends_the_batch(connection: Connection, lost: int) -> None:
    class Lossy(FaultyPublisher):
        async def before(self, after: int) -> bool:
            return after != lost - 1

    with pytest.raises((BatchIncomplete, APIError)):
        await Lossy(connection).publish(make_messages(5), 0)
    assert await read_data(connection) == [f"m{n}" for n in range(1, lost)]


async def test_a_lost_last_message_is_noticed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch stays open on the server; the next one is not disturbed by it."""
    monkeypatch.setattr(batch_publisher, "ANSWER_TIMEOUT", 0.5)

    class Lossy(FaultyPublisher):
        async def before(self, after: int) -> bool:
            return after != 4

    publisher = Lossy(connection)
    with pytest.raises(TimeoutError):
        await publisher.publish(make_messages(5), 0)
    assert await read_data(connection) == ["m1", "m2", "m3", "m4"]
    assert await BatchPublisher(connection).publish(make_messages(3), 4) == 7


async def test_without_a_stream_it_fails_at_once(connection: Connection) -> None:
    await connection.js.delete_stream("S")
    publisher = BatchPublisher(connection)
    for publish in (publisher.publish, publisher.publish_singly):
        with pytest.raises(NoStreamResponseError):
            await publish(make_messages(3), 0)


async def test_a_stream_that_takes_no_batches_refuses_one(connection: Connection) -> None:
    info = await connection.js.stream_info("S")
    await connection.js.update_stream(info.config.evolve(allow_batched=False))
    with pytest.raises(APIError, match="batch publish is disabled"):
        await BatchPublisher(connection).publish(make_messages(2), 0)
    assert await BatchPublisher(connection).publish_singly(make_messages(2), 0) == 2


async def test_answers_from_elsewhere_are_ignored(connection: Connection) -> None:
    class Disturbed(FaultyPublisher):
        async def before(self, after: int) -> bool:
            assert self._in_flight is not None
            for data in (b"", b"no JSON", b"[]", b'{"seq": "x"}'):
                await connection.client.publish(self._in_flight.reply, data)
            # Acknowledgements of other batches; one has a number that begins with the same digit.
            for other in ("0", f"{self._number}0"):
                reply = f"{self._inbox}.{self._id}-{other}"
                await connection.client.publish(reply, b'{"stream": "S", "seq": 3, "count": 3}')
            await connection.client.flush()
            return True

    assert await Disturbed(connection).publish(make_messages(3), 0) == 3
    assert await read_data(connection) == ["m1", "m2", "m3"]


async def test_an_acknowledgement_of_fewer_messages_is_not_trusted(connection: Connection) -> None:
    class Deceived(FaultyPublisher):
        async def before(self, after: int) -> bool:
            assert self._in_flight is not None
            if after == 2:
                self._in_flight.receive(b'{"stream": "S", "seq": 2, "count": 2}', {})
            return True

    with pytest.raises(BatchIncomplete, match="2 of 3"):
        await Deceived(connection).publish(make_messages(3), 0)


async def test_a_server_that_answers_nothing_is_given_up_and_used_again(
    own_nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_publisher, "ANSWER_TIMEOUT", 0.3)
    async with await connect(own_nats.url, "publisher") as connection:
        await connection.wait_until_connected()
        await create_stream(connection)
        publisher = BatchPublisher(connection)
        own_nats.child.freeze()
        with pytest.raises(TimeoutError):
            await publisher.publish(make_messages(3), 0)
        own_nats.child.thaw()
        await until_stored(connection, 3)  # the batch arrives after it was given up
        with pytest.raises(Fenced):
            await publisher.publish(make_messages(3), 0)
        assert await publisher.publish(make_messages(3), 3) == 6


async def test_after_a_new_connection_it_listens_again(own_nats: Nats) -> None:
    async with await connect(own_nats.url, "publisher") as connection:
        await connection.wait_until_connected()
        await create_stream(connection)
        publisher = BatchPublisher(connection)
        for session in range(1, 4):
            await until(lambda session=session: connection.sessions >= session and connection.connected)  # type: ignore[misc]
            assert await publisher.publish(make_messages(3), 3 * (session - 1)) == 3 * session
            await own_nats.kill()
            await own_nats.start()


async def test_a_batch_that_the_server_works_on_is_not_given_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server acknowledges every FLOW messages, and each acknowledgement extends the wait."""
    monkeypatch.setattr(batch_publisher, "ANSWER_TIMEOUT", 0.4)
    publisher = BatchPublisher(connection)
    async with publisher._begin(2) as publication:
        waiting = asyncio.create_task(publication.wait(2))
        for _ in range(4):
            await asyncio.sleep(0.2)
            publication.receive(b'{"type": "ack", "seq": 0, "msgs": 50}', {})
        publication.receive(b'{"stream": "S", "seq": 2, "count": 2}', {})
        assert await waiting == 2
