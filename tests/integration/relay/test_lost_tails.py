"""Streams that lost their last messages: the relay publishes them again under their old sequences."""

import pytest

from command_server.relay import outbox
from contracts.envelope import to_headers
from contracts.streams import JETSTREAM, subject
from devstack.servers import Nats
from runtime.jetstream import Connection
from tests.support.harness import feed
from tests.support.harness.feed import EventsBySequence, Writer
from tests.support.harness.waiting import until


def list_event_ids(events: EventsBySequence) -> dict[int, str]:
    return {sequence: event.id for sequence, event in events.items()}


async def lose_tail(observer: Connection, count: int) -> EventsBySequence:
    """Remove the stream's last messages, as a power failure does; return the events before."""
    before = await feed.read_stream(observer)
    info = await observer.js.stream_info(JETSTREAM)
    await observer.js.delete_stream(JETSTREAM)
    await observer.js.add_stream(info.config)
    assert info.config.subjects
    prefix = info.config.subjects[0].removesuffix(">")
    for sequence in range(1, count + 1):
        event = before[sequence]
        name = subject(event.stream).removeprefix("diptych.events.")
        await observer.js.publish(prefix + name, event.data, headers=to_headers(event))
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

        async def is_whole() -> bool:
            return (await feed.read_identity(observer)).last_sequence == 7

        await until(is_whole)
        assert list_event_ids(await feed.read_stream(observer)) == list_event_ids(before)
