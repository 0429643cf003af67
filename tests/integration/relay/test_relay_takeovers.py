"""Two relays at once, and relays that were frozen and replaced: none of them does harm."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from nats.js.errors import NoStreamResponseError

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.batch_sender import Publisher
from command_server.relay.outbox import Outbox, RelayStateChanged
from command_server.relay.outbox_rows import RelayState
from contracts.envelope import RecordedEvent
from contracts.streams import JETSTREAM
from devstack.servers import Nats
from runtime.jetstream import Connection, Fenced
from runtime.postgres import create_engine
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.relay_hooks import Gate, HookedPublisher, stop_after_publish, stop_before_publish
from tests.support.harness.waiting import until


async def test_two_relays_at_once_publish_each_event_once(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.MAX_PAUSE", 0.02)
    monkeypatch.setattr("command_server.relay.relay.INITIAL_PAUSE", 0.01)
    batches = {"first": 0, "second": 0}

    def count_batches(name: str) -> Callable[[Publisher], Publisher]:
        class CountingPublisher(HookedPublisher):
            async def before(self, events: Sequence[RecordedEvent]) -> None:
                await asyncio.sleep(random.uniform(0, 0.01))

            async def after(self, events: Sequence[RecordedEvent]) -> None:
                batches[name] += 1

        return CountingPublisher

    async with (
        feed.relay(database_url, own_nats.url, count_batches("first")) as relay,
        feed.relay(database_url, own_nats.url, count_batches("second")),
    ):
        async with feed.generate_load(writer):
            await until(lambda: min(batches.values()) >= 5)
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)


async def test_a_thawed_relays_batch_is_refused_as_a_whole(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    gate = Gate()
    async with feed.relay(database_url, own_nats.url, stop_before_publish(gate)):
        await writer.commit("x", "y", "z")
        await gate.reached.wait()
        async with feed.relay(database_url, own_nats.url) as other:
            await writer.wait_until_published()
            gate.open.set()
            await until(lambda: gate.outcome is not None)
            await writer.commit("x")
            await writer.wait_until_published()
            await feed.assert_whole(other.connection, writer)
    assert isinstance(gate.outcome, Fenced)


async def test_a_relay_thawed_after_a_recreation_publishes_nothing(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    """The expected sequence matches by chance: the new stream is empty, as the old one was."""
    early, late = Gate(), Gate()
    async with feed.relay(database_url, own_nats.url, stop_before_publish(early)) as thawed:
        await writer.commit("x", "y")
        await early.reached.wait()
        await observer.js.delete_stream(JETSTREAM)
        async with feed.relay(database_url, own_nats.url, stop_before_publish(late)):
            await late.reached.wait()
            assert (await feed.read_identity(observer)).last_sequence == 0
            early.open.set()
            await until(lambda: early.outcome is not None)
            await thawed.stop()
            assert (await feed.read_identity(observer)).last_sequence == 0
            late.open.set()
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)
    assert isinstance(early.outcome, NoStreamResponseError)


async def test_a_relay_thawed_after_a_recreation_marks_nothing(
    database_url: str,
    own_nats: Nats,
    writer: Writer,
    observer: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, refused = Gate(), asyncio.Event()
    async with feed.relay(database_url, own_nats.url, stop_after_publish(gate)) as thawed:
        mark_and_read = thawed.outbox.mark_and_read

        async def observed_mark(*arguments: Any) -> Any:
            try:
                return await mark_and_read(*arguments)
            except RelayStateChanged:
                refused.set()
                raise

        monkeypatch.setattr(thawed.outbox, "mark_and_read", observed_mark)
        await feed.wait_until_complete(observer)
        await writer.commit("x", "y")
        await gate.reached.wait()
        epoch = (await feed.read_identity(observer)).epoch
        await observer.js.delete_stream(JETSTREAM)
        # The second relay has begun its epoch and found no history to publish.
        second = Gate()
        async with feed.relay(database_url, own_nats.url, stop_before_publish(second)):
            await second.reached.wait()
            begun = await feed.read_identity(observer)
            assert (begun.epoch != epoch, begun.has_history) == (True, True)
            gate.open.set()
            await asyncio.wait_for(refused.wait(), 5)
            second.open.set()
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)


async def test_events_that_another_relay_marks_are_not_reported_as_unknown(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, find_marked = Gate(), Outbox.find_marked

    async def gated_find_marked(self: Outbox, epoch: str, positions: Sequence[int]) -> set[int]:
        if not gate.reached.is_set():
            await gate()
        return await find_marked(self, epoch, positions)

    class FailsOnce(HookedPublisher):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            if not gate.reached.is_set():
                raise ConnectionError("failed before the mark")

    monkeypatch.setattr(Outbox, "find_marked", gated_find_marked)
    async with feed.relay(database_url, own_nats.url, FailsOnce) as relay:
        await writer.commit("x", "y")
        await gate.reached.wait()
        epoch = (await feed.read_identity(relay.connection)).epoch
        engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
        async with Outbox(engine) as other:
            rows = await writer.query("SELECT position FROM outbox ORDER BY position")
            positions = [row[0] for row in rows]
            await other.mark(await other.read_state(), positions, len(positions))
        await engine.dispose()
        gate.open.set()
        await writer.commit("x", "y")
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)
        assert (await feed.read_identity(relay.connection)).epoch == epoch


async def test_a_mark_with_an_outdated_state_is_refused(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    await writer.commit("x", "y")
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.wait_until_published()
        await relay.stop()
        async with relay.outbox as outbox:
            state = await outbox.read_state()
            await writer.commit("x")
            for stale in (
                RelayState(state.incarnation, state.epoch, 1),
                RelayState(state.incarnation, state.incarnation, 2),
                RelayState(state.epoch, state.epoch, 2),
            ):
                positions = [3] * (3 - stale.sequence)
                with pytest.raises(RelayStateChanged):
                    await outbox.mark(stale, positions, 3)
                with pytest.raises(RelayStateChanged):
                    await outbox.mark_and_read(stale, positions, 3, 0, 10)
            with pytest.raises(ValueError, match="do not reach"):
                await outbox.mark(state, [3], 4)
            with pytest.raises(ValueError, match="do not reach"):
                await outbox.mark_and_read(state, [3], 4, 0, 10)
            assert await outbox.read_state() == state
        assert await writer.count_pending() == 1
