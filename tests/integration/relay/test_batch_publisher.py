"""Fenced batches: a stream holds a prefix of each, whatever happens to the messages."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

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
from tests.support.harness.keys import get_ring
from tests.support.harness.stray_errors import no_stray_errors
from tests.support.harness.waiting import until


class FaultyPublisher(BatchPublisher):
    """Calls `before` ahead of each message; if that returns False, the message is lost."""

    async def before(self, after: int) -> bool:
        return True

    async def _send(self, message: OutgoingMessage, after: int, reply: str) -> None:
        if await self.before(after):
            await super()._send(message, after, reply)


class ScratchStream:
    """A stream whose subject no other test uses: one that was just deleted may still answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.subject = f"scratch.{uuid4().hex}"

    async def create(self) -> None:
        config = api.StreamConfig(name="SCRATCH", subjects=[self.subject], allow_batched=True)
        await self.connection.js.add_stream(config)

    def make_messages(self, count: int, name: str = "m") -> list[OutgoingMessage]:
        return [
            OutgoingMessage(self.subject, f"{name}{n}".encode(), {"name": f"{n}"})
            for n in range(1, count + 1)
        ]

    async def read_end(self) -> int:
        return int((await self.connection.js.stream_info("SCRATCH")).state.last_seq)

    async def read_data(self) -> list[str]:
        sequences = range(1, await self.read_end() + 1)
        messages = [await self.connection.js.get_msg("SCRATCH", seq=sequence) for sequence in sequences]
        return [(message.data or b"").decode() for message in messages]

    async def wait_until_stored(self, count: int) -> None:
        async def are_stored() -> bool:
            return await self.read_end() == count

        await until(are_stored)


@pytest.fixture
async def stream(nats_url: str) -> AsyncIterator[ScratchStream]:
    async with await connect(nats_url, "publisher", get_ring) as connection:
        await connection.wait_until_connected()
        stream = ScratchStream(connection)
        await stream.create()
        yield stream


@pytest.fixture
async def own_stream(own_nats: Nats) -> AsyncIterator[ScratchStream]:
    """On a server to freeze and to kill."""
    async with await connect(own_nats.url, "publisher", get_ring) as connection:
        await connection.wait_until_connected()
        stream = ScratchStream(connection)
        await stream.create()
        yield stream


@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
@pytest.mark.parametrize("singly", [False, True], ids=["batch", "singly"])
async def test_messages_are_stored_in_order(stream: ScratchStream, size: int, singly: bool) -> None:
    publisher = BatchPublisher(stream.connection)
    publish = publisher.publish_singly if singly else publisher.publish
    assert await publish(stream.make_messages(size, "a"), 0) == size
    assert await publish(stream.make_messages(size, "b"), size) == 2 * size
    assert await stream.read_end() == 2 * size
    if size <= 3:
        assert await stream.read_data() == [f"{name}{n}" for name in "ab" for n in range(1, size + 1)]
    last = await stream.connection.js.get_msg("SCRATCH", seq=2 * size)
    assert (last.data, (last.headers or {})["name"]) == (f"b{size}".encode(), f"{size}")


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("singly", [False, True], ids=["batch", "singly"])
@pytest.mark.parametrize("expected", [0, 2])
async def test_a_wrong_expectation_stores_nothing(
    stream: ScratchStream, size: int, singly: bool, expected: int
) -> None:
    publisher = BatchPublisher(stream.connection)
    await publisher.publish(stream.make_messages(1), 0)
    publish = publisher.publish_singly if singly else publisher.publish
    with pytest.raises(Fenced):
        await publish(stream.make_messages(size), expected)
    assert await stream.read_data() == ["m1"]
    assert await publish(stream.make_messages(size, "n"), 1) == 1 + size


@pytest.mark.parametrize("place", [1, 2, 3, 4])
async def test_another_clients_message_ends_the_batch(stream: ScratchStream, place: int) -> None:
    """The messages behind the refused one would fit, were they single messages."""

    class Interrupted(FaultyPublisher):
        async def before(self, after: int) -> bool:
            if after == place - 1:
                await stream.wait_until_stored(after)
                await stream.connection.js.publish(stream.subject, b"stranger")
            return True

    with pytest.raises((Fenced, BatchIncomplete)):
        await Interrupted(stream.connection).publish(stream.make_messages(5), 0)
    own = [f"m{n}" for n in range(1, place)]
    assert await stream.read_data() == [*own, "stranger"]
    following = stream.make_messages(2)
    assert await BatchPublisher(stream.connection).publish(following, place) == place + 2


@pytest.mark.parametrize("lost", [1, 2, 4])
async def test_a_lost_message_ends_the_batch(stream: ScratchStream, lost: int) -> None:
    class Lossy(FaultyPublisher):
        async def before(self, after: int) -> bool:
            return after != lost - 1

    with pytest.raises((BatchIncomplete, APIError)):
        await Lossy(stream.connection).publish(stream.make_messages(5), 0)
    assert await stream.read_data() == [f"m{n}" for n in range(1, lost)]


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_strangers_in_the_places_of_lost_messages_end_the_batch(
    stream: ScratchStream, lost: int
) -> None:
    """The next message would fit, were it not of the same batch: the stream would have a hole."""

    class Lossy(FaultyPublisher):
        async def before(self, after: int) -> bool:
            if after < lost:
                await stream.connection.js.publish(stream.subject, b"stranger")
            return after >= lost

    with pytest.raises((Fenced, BatchIncomplete, APIError)):
        await Lossy(stream.connection).publish(stream.make_messages(4), 0)
    assert await stream.read_data() == ["stranger"] * lost


async def test_a_lost_last_message_is_noticed(stream: ScratchStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch stays open on the server; the next one is not disturbed by it."""
    monkeypatch.setattr(batch_publisher, "ANSWER_TIMEOUT", 0.5)

    class Lossy(FaultyPublisher):
        async def before(self, after: int) -> bool:
            return after != 4

    with pytest.raises(TimeoutError):
        await Lossy(stream.connection).publish(stream.make_messages(5), 0)
    assert await stream.read_data() == ["m1", "m2", "m3", "m4"]
    assert await BatchPublisher(stream.connection).publish(stream.make_messages(3), 4) == 7


async def test_an_error_answer_to_a_batch_that_cannot_be_sent_is_no_stray_error(
    stream: ScratchStream,
) -> None:
    class Disconnected(FaultyPublisher):
        async def before(self, after: int) -> bool:
            assert self._in_flight is not None
            if after == 2:
                self._in_flight.receive(b'{"error": {"err_code": 10071}}', {})
                raise ConnectionError("disconnected")
            return True

    with no_stray_errors(), pytest.raises(ConnectionError):
        await Disconnected(stream.connection).publish(stream.make_messages(3), 0)


async def test_without_a_stream_it_fails_at_once(nats_url: str) -> None:
    async with await connect(nats_url, "publisher", get_ring) as connection:
        await connection.wait_until_connected()
        publisher = BatchPublisher(connection)
        for publish in (publisher.publish, publisher.publish_singly):
            with pytest.raises(NoStreamResponseError):
                await publish(ScratchStream(connection).make_messages(3), 0)


async def test_a_stream_that_takes_no_batches_refuses_one(stream: ScratchStream) -> None:
    info = await stream.connection.js.stream_info("SCRATCH")
    await stream.connection.js.update_stream(info.config.evolve(allow_batched=False))
    with pytest.raises(APIError, match="batch publish is disabled"):
        await BatchPublisher(stream.connection).publish(stream.make_messages(2), 0)
    assert await BatchPublisher(stream.connection).publish_singly(stream.make_messages(2), 0) == 2


async def test_answers_from_elsewhere_are_ignored(stream: ScratchStream) -> None:
    class Disturbed(FaultyPublisher):
        async def before(self, after: int) -> bool:
            assert self._in_flight is not None
            for data in (b"", b"no JSON", b"[]", b'{"seq": "x"}'):
                await stream.connection.client.publish(self._in_flight.reply, data)
            # Acknowledgements of other batches; one has a number that begins with the same digit.
            for other in ("0", f"{self._number}0"):
                reply = f"{self._inbox}.{self._id}-{other}"
                await stream.connection.client.publish(reply, b'{"stream": "S", "seq": 3, "count": 3}')
            await stream.connection.client.flush()
            return True

    assert await Disturbed(stream.connection).publish(stream.make_messages(3), 0) == 3
    assert await stream.read_data() == ["m1", "m2", "m3"]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"stream": "S", "seq": 2, "count": 2}',
        b'{"stream": "S", "seq": 0, "count": 0}',
        b'{"stream": "S", "seq": 3}',
        b'{"stream": "S", "seq": 2, "count": 3}',
        b"{}",
    ],
)
async def test_only_an_acknowledgement_of_all_messages_counts(stream: ScratchStream, answer: bytes) -> None:
    class Deceived(FaultyPublisher):
        async def before(self, after: int) -> bool:
            assert self._in_flight is not None
            if after == 2:
                self._in_flight.receive(answer, {})
            return True

    with pytest.raises(BatchIncomplete):
        await Deceived(stream.connection).publish(stream.make_messages(3), 0)


async def test_a_batch_that_the_server_works_on_is_not_given_up(
    stream: ScratchStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server acknowledges every FLOW messages, and each acknowledgement extends the wait."""
    monkeypatch.setattr(batch_publisher, "ANSWER_TIMEOUT", 0.4)
    async with BatchPublisher(stream.connection)._begin(2) as publication:
        waiting = asyncio.create_task(publication.wait(2))
        for _ in range(4):
            await asyncio.sleep(0.2)
            publication.receive(b'{"type": "ack", "seq": 0, "msgs": 50}', {})
        publication.receive(b'{"stream": "S", "seq": 2, "count": 2}', {})
        assert await waiting == 2


async def test_a_server_that_answers_nothing_is_given_up_and_used_again(
    own_nats: Nats, own_stream: ScratchStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_publisher, "ANSWER_TIMEOUT", 0.3)
    publisher = BatchPublisher(own_stream.connection)
    own_nats.child.freeze()
    with pytest.raises(TimeoutError):
        await publisher.publish(own_stream.make_messages(3), 0)
    own_nats.child.thaw()
    await own_stream.wait_until_stored(3)  # the batch arrives after it was given up
    monkeypatch.undo()
    with pytest.raises(Fenced):
        await publisher.publish(own_stream.make_messages(3), 0)
    assert await publisher.publish(own_stream.make_messages(3), 3) == 6


async def test_it_subscribes_anew_in_every_session_of_the_connection(
    own_nats: Nats, own_stream: ScratchStream
) -> None:
    connection, publisher = own_stream.connection, BatchPublisher(own_stream.connection)
    for session in range(1, 4):
        await until(lambda session=session: connection.sessions >= session and connection.connected)  # type: ignore[misc]
        assert await publisher.publish(own_stream.make_messages(3), 3 * (session - 1)) == 3 * session
        await own_nats.kill()
        await own_nats.start()
