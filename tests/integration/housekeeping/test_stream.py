"""Removal of old messages while the relay changes the stream's configuration."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext, api

from contracts.streams import JETSTREAM, SUBJECTS
from devstack.servers import Nats
from operations.housekeeping import stream
from operations.housekeeping.database import Database
from operations.housekeeping.followers import Follower
from operations.housekeeping.stream import StreamRemoval
from runtime.jetstream import Connection, StreamIdentity, connect, read_stream_identity
from runtime.jetstream.stream import read_next_sequence
from tests.support.harness import feed
from tests.support.harness.keys import get_ring
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
        async with (
            feed.writer(database_url) as writer,
            feed.relay(database_url, own_nats.url, keeps_all=False) as relay,
        ):
            await writer.commit(*"abcde")
            await writer.wait_until_published()
            before = await feed.wait_until_complete(relay.connection)
            async with await connect(own_nats.url, "housekeeping", get_ring) as connection:
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
    async with (
        feed.writer(database_url) as writer,
        feed.relay(database_url, own_nats.url, keeps_all=False) as relay,
    ):
        await writer.commit(*"abcde")
        await writer.wait_until_published()
        epoch = (await feed.wait_until_complete(relay.connection)).epoch
        async with await connect(own_nats.url, "housekeeping", get_ring) as connection:
            await connection.wait_until_connected()
            update, identify = connection.js.update_stream, read_stream_identity

            async def write_late(config: api.StreamConfig) -> api.StreamInfo:
                assert not config.allow_batched

                async def has_relay_changed_it() -> bool:
                    seen = await identify(connection.js)
                    return seen is not None and seen.takes_batches

                await until(has_relay_changed_it)
                return await update(config)

            monkeypatch.setattr(connection.js, "update_stream", write_late)
            config = (await connection.js.stream_info(JETSTREAM)).config
            await update(config.evolve(allow_batched=False))
            result = await StreamRemoval(database, connection, ()).remove(timedelta(0), False)
            await writer.commit(*"abc")
            await writer.wait_until_published()

            async def are_both_kept() -> bool:
                seen = await identify(connection.js)
                return seen is not None and seen.takes_batches and seen.removed_to >= result.removed

            await until(are_both_kept)
            after = await feed.read_identity(connection)
            assert (after.epoch, after.intact, after.last_sequence) == (epoch, True, 8)
    await database.close()


class UnreadFollower:
    """Has read nothing of the stream."""

    name = "unread"
    subjects = (SUBJECTS,)

    def __init__(self) -> None:
        self.checkpoint = ("", 0)
        self.advances: list[int] = []

    async def read(self, epoch: str) -> Sequence[Follower]:
        self.checkpoint = (epoch, self.checkpoint[1])
        return (self,)

    async def advance(self, sequence: int) -> None:
        self.advances.append(sequence)


async def test_a_follower_of_replicas_advances_only_if_two_checks_find_no_message(
    database_url: str, own_nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, follower, answers = Database(database_url), UnreadFollower(), []

    async def answer_as_former_leader_first(js: JetStreamContext, subject: str, start: int) -> int | None:
        answers.append(await read_next_sequence(js, subject, start))
        return answers[-1] if len(answers) > 1 else None

    async def read_replicated(js: JetStreamContext) -> StreamIdentity | None:
        identity = await read_stream_identity(js)
        return replace(identity, replicas=3) if identity else None

    monkeypatch.setattr(stream, "read_next_sequence", answer_as_former_leader_first)
    monkeypatch.setattr(stream, "read_stream_identity", read_replicated)
    monkeypatch.setattr(stream, "FORMER_LEADER_TIME", 0.0)
    async with (
        feed.writer(database_url) as writer,
        feed.relay(database_url, own_nats.url, keeps_all=False) as relay,
    ):
        await writer.commit(*"abcde")
        await writer.wait_until_published()
        await feed.wait_until_complete(relay.connection)
        result = await StreamRemoval(database, relay.connection, [follower]).remove(timedelta(0), False)
    await database.close()
    assert (result.removed, result.note) == (0, "unread has not read 5 old messages yet")
    assert (follower.advances, answers) == ([], [1, 1])
