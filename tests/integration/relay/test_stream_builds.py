"""Streams that are damaged, deleted or foreign: the relay builds a new one with all events."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from nats.js import JetStreamContext, api

from command_server.relay import event_stream
from command_server.relay.event_stream import EventStream
from contracts.envelope import RecordedEvent
from contracts.streams import JETSTREAM
from devstack.servers import Nats
from runtime.jetstream import Connection
from runtime.jetstream.stream import COMPLETE_KEY, HISTORY_KEY
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.jetstream import create_stream
from tests.support.harness.relay_hooks import Gate
from tests.support.harness.waiting import until


@pytest.mark.parametrize("damage", ["deleted", "purged", "gap"])
async def test_an_idle_relay_recreates_a_damaged_stream_with_all_events(
    database_url: str,
    own_nats: Nats,
    writer: Writer,
    observer: Connection,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    build_config = event_stream._build_config

    def build_unprotected(*arguments: Any, **_: Any) -> api.StreamConfig:
        return build_config(*arguments, deny_purge=False).evolve(deny_delete=False)

    monkeypatch.setattr(event_stream, "_build_config", build_unprotected)  # or NATS would refuse the damage
    async with feed.relay(database_url, own_nats.url):
        for _ in range(30):
            await writer.commit(*"abcdefghijklmnopqrstuvwxyz" * 3)
        await writer.wait_until_published()
        before = await feed.wait_until_complete(observer)
        match damage:
            case "deleted":
                await observer.js.delete_stream(JETSTREAM)
            case "purged":
                await observer.js.purge_stream(JETSTREAM)
            case "gap":
                await observer.js.delete_msg(JETSTREAM, 100)
        await feed.wait_until_complete(observer, other_than=before.epoch)
        await feed.assert_whole(observer, writer)


@pytest.mark.long
async def test_a_stream_deleted_repeatedly_under_load_is_recreated(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        epoch = (await feed.wait_until_complete(observer)).epoch
        async with feed.generate_load(writer):
            for _ in range(3):
                await writer.wait_until_marked(200)
                await observer.js.delete_stream(JETSTREAM)
                epoch = (await feed.wait_until_complete(observer, other_than=epoch)).epoch
        await writer.wait_until_published()
        await feed.assert_whole(observer, writer)


async def test_late_commits_at_low_positions_during_a_build_are_not_lost(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    """The events commit during the build, at positions that it has passed."""
    gate = Gate()

    class GatedStream(EventStream):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            last = await super().publish(epoch, events, after)
            if not gate.reached.is_set():
                await gate()
            return last

    async with writer.begin() as transaction:
        await writer.append(transaction, "late", "x1")
        await writer.commit(*[f"x{n}" for n in range(2, 1_500)])
        async with feed.relay(database_url, own_nats.url):
            await writer.wait_until_published()
        await observer.js.delete_stream(JETSTREAM)
        async with feed.relay(database_url, own_nats.url, stream=GatedStream):
            await gate.reached.wait()
            assert not (await feed.read_identity(observer)).complete
            await writer.append(transaction, "late")
            await transaction.commit()
            gate.open.set()
            await feed.wait_until_complete(observer)
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)


async def test_a_stream_build_resumes_where_another_relay_stopped(
    database_url: str,
    own_nats: Nats,
    writer: Writer,
    observer: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(5):
        await writer.commit(*[str(n) for n in range(1_000)])
    async with feed.relay(database_url, own_nats.url):
        await writer.wait_until_published()
    await writer.query("DELETE FROM outbox")
    await writer.commit("new")
    await observer.js.delete_stream(JETSTREAM)
    batches = 0

    class StoppingStream(EventStream):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            nonlocal batches
            last = await super().publish(epoch, events, after)
            batches += 1
            if batches == 2:
                stopped.set()
                await asyncio.Event().wait()
            return last

    stopped = asyncio.Event()
    async with feed.relay(database_url, own_nats.url, stream=StoppingStream):
        await stopped.wait()
    interrupted = await feed.read_identity(observer)
    assert (interrupted.complete, interrupted.last_sequence) == (False, 2_000)

    get = JetStreamContext.get_msg

    async def get_from_deleted_stream(js: JetStreamContext, name: str, **options: Any) -> api.RawStreamMsg:
        """Answer as a server that was frozen, and does not know yet that the stream was replaced."""
        if "seq" not in options:
            return await get(js, name, **options)
        return api.RawStreamMsg(seq=options["seq"], headers={"diptych-position": "5000"})

    monkeypatch.setattr(JetStreamContext, "get_msg", get_from_deleted_stream)
    async with feed.relay(database_url, own_nats.url):
        await writer.wait_until_published()
        resumed = await feed.wait_until_complete(observer)
        await feed.assert_whole(observer, writer)
    assert (resumed.epoch, resumed.created) == (interrupted.epoch, interrupted.created)


async def test_a_build_continues_behind_foreign_messages(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    stopped = asyncio.Event()

    class StoppingStream(EventStream):
        async def declare_history(self) -> None:
            stopped.set()
            await asyncio.Event().wait()

    await writer.commit("a", "b")
    async with feed.relay(database_url, own_nats.url):
        await writer.wait_until_published()
    await observer.js.delete_stream(JETSTREAM)
    async with feed.relay(database_url, own_nats.url, stream=StoppingStream):
        await stopped.wait()
    interrupted = await feed.read_identity(observer)
    for _ in range(3):
        await observer.js.publish(f"diptych.feed.{interrupted.epoch}.0.a.b.a", b"foreign")
    async with feed.relay(database_url, own_nats.url):
        resumed = await feed.wait_until_complete(observer)
        await writer.commit("a")
        await writer.wait_until_published()
        events = await feed.assert_whole(observer, writer)
    assert resumed.epoch == interrupted.epoch
    assert list(events) == [1, 2, 6]


@pytest.mark.parametrize("fails_at", ["declare_history", "declare_complete"])
async def test_a_stream_is_complete_once_it_has_the_pending_events_too(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection, fails_at: str
) -> None:
    """Readers may have seen a pending event in the previous stream, if its mark was lost."""
    failed = asyncio.Event()

    class FailingStream(EventStream):
        async def _set_metadata(self, key: str, value: str) -> None:
            if key == {"declare_history": HISTORY_KEY, "declare_complete": COMPLETE_KEY}[fails_at]:
                failed.set()
                await asyncio.Event().wait()
            await super()._set_metadata(key, value)

    await writer.commit(*[str(n % 20) for n in range(300)])
    async with feed.relay(database_url, own_nats.url):
        await writer.wait_until_published()
    # Two events at low positions whose marks were lost, and one that was never published.
    await writer.query(
        "UPDATE outbox SET sequence = NULL, epoch = NULL, published_at = NULL WHERE position IN (50, 51)"
    )
    await writer.commit("new")
    await observer.js.delete_stream(JETSTREAM)
    async with feed.relay(database_url, own_nats.url, stream=FailingStream):
        await failed.wait()
        interrupted = await feed.read_identity(observer)
    expected = 298 if fails_at == "declare_history" else 301
    assert (interrupted.complete, interrupted.last_sequence) == (False, expected)
    async with feed.relay(database_url, own_nats.url):
        complete = await feed.wait_until_complete(observer)
        assert complete.last_sequence == 301
        await writer.wait_until_published()
    positions = [event.position for event in (await feed.read_stream(observer)).values()]
    assert sorted(positions) == list(range(1, 302))
    assert positions[298:] == [50, 51, 301]


async def test_a_restored_database_gets_a_stream_of_its_own(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abcdefg")
        await writer.wait_until_published()
        before = await feed.wait_until_complete(observer)
        await writer.query("UPDATE relay_state SET incarnation = gen_random_uuid()")
        after = await feed.wait_until_complete(observer, other_than=before.epoch)
        await feed.assert_whole(observer, writer)
    assert after.incarnation != before.incarnation


async def test_a_complete_stream_of_an_unknown_epoch_is_recreated(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    """A restored backup of JetStream: events published after it are not in it, and not pending either."""
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abc")
        await writer.wait_until_published()
        old = await feed.read_stream(observer)
        config = (await observer.js.stream_info(JETSTREAM)).config
        await observer.js.delete_stream(JETSTREAM)
        newer = await feed.wait_until_complete(observer, other_than=(config.metadata or {})["diptych-epoch"])
        await writer.commit(*"abc")
        await writer.wait_until_published()
    await observer.js.delete_stream(JETSTREAM)
    await create_stream(observer.js, config)
    assert len(old) == 3
    async with feed.relay(database_url, own_nats.url):

        async def is_replaced() -> bool:
            epoch = (await feed.wait_until_complete(observer)).epoch
            return epoch not in (newer.epoch, (config.metadata or {})["diptych-epoch"])

        await until(is_replaced)
        await feed.assert_whole(observer, writer)
