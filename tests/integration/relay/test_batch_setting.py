"""The stream takes fast batches wherever the server knows them; elsewhere events are published one by one."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from command_server.relay.event_stream import EventStream
from contracts.streams import JETSTREAM
from devstack.servers import Nats
from runtime.jetstream import UNREACHABLE, Connection, StreamIdentity, connect
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.keys import get_ring
from tests.support.harness.log_lines import own_lines
from tests.support.harness.refusing_nats import OlderNats, RefusingNats
from tests.support.harness.waiting import until

REFUSED = "NATS refuses fast batches; publishing events one by one"


@pytest.fixture
async def refusing_nats(tmp_path: Path) -> AsyncIterator[RefusingNats]:
    server = RefusingNats(tmp_path / "nats")
    server.refuse_updates(False)
    async with server:
        yield server


async def set_batches(connection: Connection, allowed: bool) -> None:
    config = (await connection.js.stream_info(JETSTREAM)).config
    await connection.js.update_stream(config.evolve(allow_batched=allowed))


async def test_a_stream_of_an_earlier_version_takes_batches_from_the_next_start_on(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abc")
        await writer.wait_until_published()
        before = await feed.wait_until_complete(observer)
        assert before.takes_batches
    await set_batches(observer, False)
    await writer.commit(*"abc")
    with own_lines() as lines:
        async with feed.relay(database_url, own_nats.url):
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)
        assert not lines.of(REFUSED)
    after = await feed.read_identity(observer)
    assert (after.epoch, after.takes_batches) == (before.epoch, True)


async def test_a_stream_that_loses_the_setting_gets_it_back(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        epoch = (await feed.wait_until_complete(observer)).epoch
        await set_batches(observer, False)
        await writer.commit(*"abc")
        await writer.wait_until_published()
        await until_batches_are_allowed(observer)
        await feed.assert_whole(observer, writer)
    assert (await feed.read_identity(observer)).epoch == epoch


async def until_batches_are_allowed(observer: Connection) -> None:
    async def are_allowed() -> bool:
        with suppress(*UNREACHABLE):  # while the server reloads its settings
            return observer.connected and (await feed.read_identity(observer)).takes_batches
        return False

    await until(are_allowed)


async def test_a_server_that_refuses_batches_gets_one_event_after_the_other(
    database_url: str, refusing_nats: RefusingNats, writer: Writer
) -> None:
    async with await connect(refusing_nats.url, "observer", get_ring) as observer:
        await observer.wait_until_connected()
        async with feed.relay(database_url, refusing_nats.url):
            epoch = (await feed.wait_until_complete(observer)).epoch
        await set_batches(observer, False)
        refusing_nats.refuse_updates(True)
        with own_lines() as lines:
            async with feed.relay(database_url, refusing_nats.url):
                for _ in range(3):
                    await writer.commit(*"abcabc")
                    await writer.wait_until_published()
                await feed.assert_whole(observer, writer)
                (line,) = lines.of(REFUSED)
                assert "10113" in line["error"]
                assert not (await feed.read_identity(observer)).takes_batches
                # The relay asks again in a new session, as after an upgrade of the server.
                await refusing_nats.stop()
                refusing_nats.refuse_updates(False)
                await refusing_nats.start()
                await until_batches_are_allowed(observer)
                await writer.commit(*"abc")
                await writer.wait_until_published()
                await feed.assert_whole(observer, writer)
            assert len(lines.of(REFUSED)) == 1
        assert (await feed.read_identity(observer)).epoch == epoch


async def test_a_server_that_no_longer_refuses_gets_batches_in_the_same_session(
    database_url: str, refusing_nats: RefusingNats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the upgrade of another server of its cluster, or after an error that has passed."""
    monkeypatch.setattr("command_server.relay.event_stream.RETRY_INTERVAL", 0.2)
    monkeypatch.setattr("command_server.relay.relay.CHECK_INTERVAL", 0.1)
    answers = 0

    class CountingStream(EventStream):
        async def enable_batches(self, stream: StreamIdentity) -> None:
            nonlocal answers
            before = self._refused_at
            await super().enable_batches(stream)
            answers += self._refused_at != before

    async with await connect(refusing_nats.url, "observer", get_ring) as observer:
        await observer.wait_until_connected()
        async with feed.relay(database_url, refusing_nats.url):
            await feed.wait_until_complete(observer)
        await set_batches(observer, False)
        refusing_nats.refuse_updates(True)
        with own_lines() as lines:
            async with feed.relay(database_url, refusing_nats.url, stream=CountingStream) as relay:
                await until(lambda: answers >= 3)
                refusing_nats.refuse_updates(False)
                await until_batches_are_allowed(observer)
                await writer.commit(*"abc")
                await writer.wait_until_published()
                await feed.assert_whole(observer, writer)
                assert relay.connection.sessions == 1
            assert len(lines.of(REFUSED)) == 1


@pytest.mark.long
async def test_the_relay_works_with_an_older_release(
    database_url: str, writer: Writer, tmp_path: Path
) -> None:
    """It creates the stream, publishes to it, recovers from a crash of the server and of the stream."""
    async with (
        OlderNats(tmp_path / "nats") as nats,
        await connect(nats.url, "observer", get_ring) as observer,
    ):
        await observer.wait_until_connected()
        await writer.commit(*"abcabc")
        with own_lines() as lines:
            async with feed.relay(database_url, nats.url):
                async with feed.generate_load(writer, pause=0.1):
                    await until(lambda: bool(lines.of(REFUSED)))
                    await writer.wait_until_marked(200)
                    await nats.kill()
                    await nats.start()
                    await until(lambda: observer.connected)
                    await writer.wait_until_marked(200)
                    epoch = (await feed.wait_until_complete(observer)).epoch
                    await observer.js.delete_stream(JETSTREAM)
                    await feed.wait_until_complete(observer, other_than=epoch)
                await writer.wait_until_published()
                await feed.assert_whole(observer, writer)
        assert not (await feed.read_identity(observer)).takes_batches
