"""Streams that lost their last messages: the relay publishes them again under their old sequences."""

import pytest

from command_server.relay import outbox
from contracts.streams import JETSTREAM, WAKE_SUBJECT
from devstack.servers import Nats, Postgres
from runtime.jetstream import Connection, read_stream_identity
from runtime.jetstream.stream import EPOCH_KEY
from tests.support.harness import feed
from tests.support.harness.feed import EventsBySequence, Writer
from tests.support.harness.jetstream import create_stream
from tests.support.harness.keys import sign_events
from tests.support.harness.relay_hooks import Gate
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.waiting import until


def list_event_ids(events: EventsBySequence) -> dict[int, str]:
    return {sequence: event.id for sequence, event in events.items()}


async def lose_tail(observer: Connection, count: int) -> EventsBySequence:
    """Remove the stream's last messages, as a power failure does; return the events before."""
    before = await feed.read_stream(observer)
    info = await observer.js.stream_info(JETSTREAM)
    await observer.js.delete_stream(JETSTREAM)
    await create_stream(observer.js, info.config)
    assert info.config.subjects
    prefix = info.config.subjects[0].removesuffix(">")
    epoch = (info.config.metadata or {})[EPOCH_KEY]
    for message in sign_events(epoch, [before[sequence] for sequence in range(1, count + 1)], after=0):
        name = message.subject.removeprefix("diptych.events.")
        await observer.js.publish(prefix + name, message.data, headers=message.headers)
    return before


@pytest.mark.parametrize("max_read_bytes", [outbox.MAX_READ_BYTES, 300], ids=["one read", "many reads"])
async def test_a_lost_tail_is_published_again_under_its_old_sequences(
    database_url: str,
    own_nats: Nats,
    writer: Writer,
    observer: Connection,
    monkeypatch: pytest.MonkeyPatch,
    max_read_bytes: int,
) -> None:
    monkeypatch.setattr(outbox, "MAX_READ_BYTES", max_read_bytes)
    async with feed.relay(database_url, own_nats.url):
        for _ in range(20):
            await writer.commit(*"abcdefgabcdefg")
        await writer.wait_until_published()
        epoch = (await feed.read_identity(observer)).epoch
    await writer.commit("a", "b")
    before = await lose_tail(observer, 100)
    async with feed.relay(database_url, own_nats.url):
        await writer.wait_until_published()
        events = await feed.assert_whole(observer, writer)
    assert (await feed.read_identity(observer)).epoch == epoch
    assert list_event_ids(events).items() >= list_event_ids(before).items()


async def test_a_lost_tail_without_its_outbox_rows_recreates_the_stream(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        for _ in range(20):
            await writer.commit(*"abcdefg")
        await writer.wait_until_published()
        epoch = (await feed.read_identity(observer)).epoch
    await writer.query("DELETE FROM outbox WHERE sequence = 120")
    await lose_tail(observer, 100)
    async with feed.relay(database_url, own_nats.url):
        await feed.wait_until_complete(observer, other_than=epoch)
        await feed.assert_whole(observer, writer)


async def test_an_idle_relay_notices_a_lost_tail(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abcdefg")
        await writer.wait_until_published()
        before = await lose_tail(observer, 3)
        await wait_for_end(observer, 7)
        assert list_event_ids(await feed.read_stream(observer)) == list_event_ids(before)


@pytest.mark.parametrize("taken_over", [False, True], ids=["one relay", "two relays"])
async def test_lost_marks_and_a_lost_tail_keep_the_order_of_publication(
    own_postgres: Postgres,
    own_nats: Nats,
    observer: Connection,
    monkeypatch: pytest.MonkeyPatch,
    taken_over: bool,
) -> None:
    """A reader that has received position 2 still receives position 1, which was published after it."""
    await own_postgres.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await own_postgres.execute("SELECT pg_reload_conf()")
    url, gate = own_postgres.url_of(TEMPLATE), Gate()
    with monkeypatch.context() as patched:
        patched.setattr("command_server.relay.relay.MARK_DELAY", 60.0)
        async with feed.writer(url) as writer:
            async with feed.relay(url, own_nats.url) as first:
                await feed.wait_until_complete(observer)
                async with writer.begin() as transaction:
                    await writer.append(transaction, "late")
                    await writer.commit("a")
                    await wait_for_end(observer, 1)
                if taken_over:
                    patched.setattr(first.outbox, "sync_marks", lambda _state: gate())
                await observer.client.publish(WAKE_SUBJECT)  # the relay marks position 2 and reads 1
                await (gate.reached.wait() if taken_over else wait_for_end(observer, 2))
            if taken_over:
                async with feed.relay(url, own_nats.url):
                    await wait_for_end(observer, 2)
    await own_postgres.kill()
    before = await lose_tail(observer, 0)
    assert [event.position for event in before.values()] == [2, 1]
    await own_postgres.start()
    async with feed.writer(url) as writer, feed.relay(url, own_nats.url):
        await writer.wait_until_published()
        assert list_event_ids(await feed.assert_whole(observer, writer)) == list_event_ids(before)


async def wait_for_end(observer: Connection, sequence: int) -> None:
    async def is_reached() -> bool:
        identity = await read_stream_identity(observer.js)
        return identity is not None and identity.last_sequence == sequence

    await until(is_reached)
