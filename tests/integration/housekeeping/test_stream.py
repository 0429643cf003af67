"""Removal of old messages while the relay changes the stream's configuration."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from nats.js import api

from contracts.streams import JETSTREAM
from devstack.servers import Nats
from operations.housekeeping.database import Database
from operations.housekeeping.followers import Follower
from operations.housekeeping.stream import StreamRemoval
from runtime.jetstream import Connection, connect, read_stream_identity
from tests.support.harness import feed
from tests.support.harness.waiting import until


class RelayBetweenTwoReads:
    """No followers; a relay reads the configuration before housekeeping changes it, and writes it after."""

    def __init__(self, connection: Connection) -> None:
        self._js = connection.js
        self._config: api.StreamConfig | None = None

    async def read(self, _epoch: str) -> Sequence[Follower]:
        if self._config is None:
            self._config = (await self._js.stream_info(JETSTREAM)).config
        else:
            await self._js.update_stream(self._config)
        return ()


async def test_no_message_is_removed_if_the_relay_overwrites_the_record_of_the_removal(
    database_url: str, own_nats: Nats
) -> None:
    database = Database(database_url)
    try:
        async with feed.writer(database_url) as writer, feed.relay(database_url, own_nats.url) as relay:
            await writer.commit(*"abcde")
            await writer.wait_until_published()
            before = await feed.wait_until_complete(relay.connection)
            async with await connect(own_nats.url, "housekeeping") as connection:
                await connection.wait_until_connected()
                sources = [RelayBetweenTwoReads(connection)]
                interrupted = await StreamRemoval(database, connection, sources).remove(timedelta(0), False)
                assert (interrupted.removed, "relay" in interrupted.note) == (0, True)
                assert await feed.read_identity(connection) == before
                following = await StreamRemoval(database, connection, ()).remove(timedelta(0), False)
                assert following.removed == 5
                after = await feed.read_identity(connection)
            assert (after.epoch, after.intact, after.messages) == (before.epoch, True, 0)
    finally:
        await database.close()


async def test_a_setting_of_the_relay_outlasts_older_settings_that_housekeeping_writes_back(
    database_url: str, own_nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    async with feed.writer(database_url) as writer, feed.relay(database_url, own_nats.url) as relay:
        await writer.commit(*"abcde")
        await writer.wait_until_published()
        epoch = (await feed.wait_until_complete(relay.connection)).epoch
        async with await connect(own_nats.url, "housekeeping") as connection:
            await connection.wait_until_connected()
            update, identify = connection.js.update_stream, read_stream_identity

            async def write_late(config: api.StreamConfig) -> api.StreamInfo:
                assert not config.allow_batched

                async def has_relay_changed_it() -> bool:
                    stream = await identify(connection.js)
                    return stream is not None and stream.takes_batches

                await until(has_relay_changed_it)
                return await update(config)

            monkeypatch.setattr(connection.js, "update_stream", write_late)
            config = (await connection.js.stream_info(JETSTREAM)).config
            await update(config.evolve(allow_batched=False))
            result = await StreamRemoval(database, connection, ()).remove(timedelta(0), False)
            await writer.commit(*"abc")
            await writer.wait_until_published()

            async def are_both_kept() -> bool:
                stream = await identify(connection.js)
                return stream is not None and stream.takes_batches and stream.removed_to >= result.removed

            await until(are_both_kept)
            after = await feed.read_identity(connection)
            assert (after.epoch, after.intact, after.last_sequence) == (epoch, True, 8)
    await database.close()
