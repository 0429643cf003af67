"""The relay under faults: the stream has each event once, and those of each aggregate in order."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from nats.js.errors import NoStreamResponseError

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay import outbox
from command_server.relay.batch_sender import Publisher
from command_server.relay.event_stream import EventStream
from command_server.relay.outbox import Outbox, RelayState, RelayStateChanged
from contracts.envelope import RecordedEvent, to_headers
from contracts.streams import JETSTREAM, subject
from devstack.servers import Nats, Postgres
from runtime.jetstream import Connection, Fenced
from runtime.jetstream.stream import COMPLETE_KEY, HISTORY_KEY
from runtime.postgres import create_engine
from tests.support.harness import feed
from tests.support.harness.feed import EventsBySequence, Writer
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.waiting import until


class HookedPublisher:
    """A publisher with hooks before a batch is sent and after its acknowledgement."""

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        await self.before(events)
        last = await self._inner.publish(epoch, events, after)
        await self.after(events)
        return last

    async def before(self, events: Sequence[RecordedEvent]) -> None:
        pass

    async def after(self, events: Sequence[RecordedEvent]) -> None:
        pass


def list_event_ids(events: EventsBySequence) -> dict[int, str]:
    return {sequence: event.id for sequence, event in events.items()}


async def test_a_failure_between_acknowledgement_and_mark_duplicates_nothing(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    failures = 0

    class FailingPublisher(HookedPublisher):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            nonlocal failures
            failures += 1
            if failures < 4:
                raise ConnectionError("failed before the mark")

    async with feed.relay(database_url, own_nats.url, FailingPublisher) as relay:
        for _ in range(10):
            await writer.commit("x", "y")
            await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)
    assert failures > 4


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))])
async def test_errors_at_any_step_under_load_lose_and_duplicate_nothing(
    database_url: str, own_nats: Nats, writer: Writer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.MAX_PAUSE", 0.05)
    dice = random.Random(seed)
    failures = 0

    def fail_at_random() -> None:
        nonlocal failures
        if dice.random() < 0.2:
            failures += 1
            raise ConnectionError("failed at random")

    class UnreliablePublisher(HookedPublisher):
        async def before(self, events: Sequence[RecordedEvent]) -> None:
            fail_at_random()

        async def after(self, events: Sequence[RecordedEvent]) -> None:
            fail_at_random()

    mark = Outbox.mark

    async def unreliable_mark(self: Outbox, *arguments: Any) -> RelayState:
        fail_at_random()
        state = await mark(self, *arguments)
        fail_at_random()
        return state

    monkeypatch.setattr(Outbox, "mark", unreliable_mark)
    async with feed.relay(database_url, own_nats.url, UnreliablePublisher) as relay:
        async with feed.generate_load(writer):
            await until(lambda: failures >= 30)
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)


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


class Gate:
    """Stops a relay at one point, like a frozen process."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.outcome: BaseException | None = None

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


def stop_before_publish(gate: Gate) -> type[HookedPublisher]:
    class GatedPublisher(HookedPublisher):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            if gate.reached.is_set():
                return await super().publish(epoch, events, after)
            await gate()
            try:
                return await super().publish(epoch, events, after)
            except BaseException as error:
                gate.outcome = error
                raise

    return GatedPublisher


def stop_after_publish(gate: Gate) -> type[HookedPublisher]:
    class GatedPublisher(HookedPublisher):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            if not gate.reached.is_set():
                await gate()

    return GatedPublisher


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
        mark = thawed.outbox.mark

        async def observed_mark(*arguments: Any) -> RelayState:
            try:
                return await mark(*arguments)
            except RelayStateChanged:
                refused.set()
                raise

        monkeypatch.setattr(thawed.outbox, "mark", observed_mark)
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
                with pytest.raises(RelayStateChanged):
                    await outbox.mark(stale, [3] * (3 - stale.sequence), 3)
            with pytest.raises(ValueError, match="do not reach"):
                await outbox.mark(state, [3], 4)
            assert await outbox.read_state() == state
        assert await writer.count_pending() == 1


@pytest.mark.parametrize("damage", ["deleted", "purged", "gap"])
async def test_an_idle_relay_recreates_a_damaged_stream_with_all_events(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection, damage: str
) -> None:
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
                await wait_until_marked(writer, 200)
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
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
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
    async with feed.relay(database_url, own_nats.url):
        await writer.wait_until_published()
        resumed = await feed.read_identity(observer)
        await feed.assert_whole(observer, writer)
    assert (resumed.complete, resumed.epoch, resumed.created) == (
        True,
        interrupted.epoch,
        interrupted.created,
    )


@pytest.mark.parametrize("fails_at", ["declare_history", "declare_complete"])
async def test_a_stream_is_complete_once_it_has_the_pending_events_too(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection, fails_at: str
) -> None:
    """Readers may have seen a pending event in the previous stream, if its mark was lost."""
    failed = asyncio.Event()

    class FailingStream(EventStream):
        async def _set_metadata(self, key: str) -> None:
            if key == {"declare_history": HISTORY_KEY, "declare_complete": COMPLETE_KEY}[fails_at]:
                failed.set()
                await asyncio.Event().wait()
            await super()._set_metadata(key)

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
    await observer.js.add_stream(config)
    assert len(old) == 3
    async with feed.relay(database_url, own_nats.url):

        async def is_replaced() -> bool:
            epoch = (await feed.wait_until_complete(observer)).epoch
            return epoch not in (newer.epoch, (config.metadata or {})["diptych-epoch"])

        await until(is_replaced)
        await feed.assert_whole(observer, writer)


async def test_the_relay_resumes_after_an_outage_of_nats(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async def has_backlog() -> bool:
        return await writer.count_pending() >= 500

    async with feed.relay(database_url, own_nats.url):
        async with feed.generate_load(writer):
            await wait_until_marked(writer, 100)
            await own_nats.kill()
            await until(has_backlog)
            await own_nats.start()
        await writer.wait_until_published()
        await until(lambda: observer.connected)
        await feed.assert_whole(observer, writer)


async def test_the_relay_resumes_after_an_outage_of_postgresql(
    own_postgres: Postgres, own_nats: Nats, observer: Connection
) -> None:
    url = own_postgres.url_of(TEMPLATE)
    async with feed.relay(url, own_nats.url):
        async with feed.writer(url) as writer:
            await writer.commit("x", "y")
            await writer.wait_until_published()
        await own_postgres.kill()
        await own_postgres.start()
        async with feed.writer(url) as writer:
            await writer.commit("z")
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)


async def wait_until_marked(writer: Writer, more: int) -> None:
    (start,) = (await writer.query("SELECT sequence FROM relay_state"))[0]

    async def is_marked() -> bool:
        (sequence,) = (await writer.query("SELECT sequence FROM relay_state"))[0]
        return bool(sequence >= start + more)

    await until(is_marked)
