"""The relay under faults: whatever fails, the stream holds each event once, each aggregate's in order."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.js.errors import NoStreamResponseError

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.event_stream import EventStream, Fenced
from command_server.relay.outbox import EpochSuperseded, Outbox, State
from command_server.relay.relay import Publisher
from contracts.envelope import RecordedEvent, to_headers
from contracts.streams import JETSTREAM, subject
from devstack.servers import Nats, Postgres
from runtime.jetstream import Connection, connect
from runtime.postgres import create_engine
from tests.support.harness import feed
from tests.support.harness.feed import Found, Writer
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.waiting import until


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Writer]:
    async with feed.writer(database_url) as writer:
        yield writer


@pytest.fixture
async def observer(own_nats: Nats) -> AsyncIterator[Connection]:
    async with await connect(own_nats.url, "observer") as connection:
        await connection.ready()
        yield connection


class Around:
    """A publisher round another, with hooks before the batch is sent and after it was acknowledged."""

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


@asynccontextmanager
async def load(writer: Writer, aggregates: int = 20) -> AsyncIterator[None]:
    """Commit events all the while."""
    stop = asyncio.Event()

    async def commit() -> None:
        while not stop.is_set():
            await writer.commit(*random.choices([str(n) for n in range(aggregates)], k=20))
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(commit())
        try:
            yield
        finally:
            stop.set()


def at_sequences(found: Found) -> dict[int, str]:
    return {sequence: event.id for sequence, event in found.items()}


async def test_a_relay_that_dies_between_acknowledgement_and_mark_publishes_nothing_twice(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    deaths = 0

    class Dying(Around):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            nonlocal deaths
            deaths += 1
            if deaths < 4:
                raise ConnectionError("died")

    async with feed.relay(database_url, own_nats.url, Dying) as relay:
        for _ in range(10):
            await writer.commit("x", "y")
            await writer.all_published()
        await feed.assert_whole(relay.connection, writer)
    assert deaths > 4


@pytest.mark.parametrize("seed", range(3))
async def test_errors_anywhere_under_load_lose_and_double_nothing(
    database_url: str, own_nats: Nats, writer: Writer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.RETRY_MOST", 0.05)
    dice = random.Random(seed)

    def perhaps() -> None:
        if dice.random() < 0.2:
            raise ConnectionError("bad luck")

    class Unlucky(Around):
        async def before(self, events: Sequence[RecordedEvent]) -> None:
            perhaps()

        async def after(self, events: Sequence[RecordedEvent]) -> None:
            perhaps()

    mark = Outbox.mark

    async def unlucky_mark(self: Outbox, *arguments: Any) -> State:
        perhaps()
        state = await mark(self, *arguments)
        perhaps()
        return state

    monkeypatch.setattr(Outbox, "mark", unlucky_mark)
    async with feed.relay(database_url, own_nats.url, Unlucky) as relay:
        async with load(writer):
            await asyncio.sleep(2)
        await writer.all_published()
        await feed.assert_whole(relay.connection, writer)


async def test_two_relays_at_once_publish_each_event_once(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.RETRY_MOST", 0.02)
    monkeypatch.setattr("command_server.relay.relay.RETRY_FIRST", 0.01)
    batches = {"first": 0, "second": 0}

    def counting(name: str) -> Callable[[Publisher], Publisher]:
        class Counting(Around):
            async def before(self, events: Sequence[RecordedEvent]) -> None:
                await asyncio.sleep(random.uniform(0, 0.01))

            async def after(self, events: Sequence[RecordedEvent]) -> None:
                batches[name] += 1

        return Counting

    async with (
        feed.relay(database_url, own_nats.url, counting("first")) as relay,
        feed.relay(database_url, own_nats.url, counting("second")),
    ):
        async with load(writer):
            await until(lambda: min(batches.values()) >= 5)
        await writer.all_published()
        await feed.assert_whole(relay.connection, writer)


class Gate:
    """Holds a relay at one point, as if its process had been stopped there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.outcome: BaseException | None = None

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


def held_before(gate: Gate) -> type[Around]:
    class Held(Around):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            if gate.reached.is_set():
                return await super().publish(epoch, events, after)
            await gate()
            try:
                return await super().publish(epoch, events, after)
            except BaseException as error:
                gate.outcome = error
                raise

    return Held


def held_after(gate: Gate) -> type[Around]:
    class Held(Around):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            if not gate.reached.is_set():
                await gate()

    return Held


async def test_a_thawed_relays_batch_is_refused_as_a_whole(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    gate = Gate()
    async with feed.relay(database_url, own_nats.url, held_before(gate)):
        await writer.commit("x", "y", "z")
        await gate.reached.wait()
        async with feed.relay(database_url, own_nats.url) as other:
            await writer.all_published()
            gate.open.set()
            await until(lambda: gate.outcome is not None)
            await writer.commit("x")
            await writer.all_published()
            await feed.assert_whole(other.connection, writer)
    assert isinstance(gate.outcome, Fenced)


async def test_a_relay_thawed_after_the_stream_was_made_anew_does_not_reach_it(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    """Though the new stream ends where the relay expects it to: it is empty, as the old one was."""
    early, late = Gate(), Gate()
    async with feed.relay(database_url, own_nats.url, held_before(early)) as thawed:
        await writer.commit("x", "y")
        await early.reached.wait()
        await observer.js.delete_stream(JETSTREAM)
        async with feed.relay(database_url, own_nats.url, held_before(late)):
            await late.reached.wait()
            assert (await feed.identity(observer)).last_sequence == 0
            early.open.set()
            await until(lambda: early.outcome is not None)
            await thawed.stop()
            assert (await feed.identity(observer)).last_sequence == 0
            late.open.set()
            await writer.all_published()
            await feed.assert_whole(observer, writer)
    assert isinstance(early.outcome, NoStreamResponseError)


async def test_a_relay_thawed_after_the_stream_was_made_anew_marks_nothing(
    database_url: str,
    own_nats: Nats,
    writer: Writer,
    observer: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, refused = Gate(), asyncio.Event()
    async with feed.relay(database_url, own_nats.url, held_after(gate)) as thawed:
        mark = thawed.outbox.mark

        async def watched_mark(*arguments: Any) -> State:
            try:
                return await mark(*arguments)
            except EpochSuperseded:
                refused.set()
                raise

        monkeypatch.setattr(thawed.outbox, "mark", watched_mark)
        await writer.commit("x", "y")
        await gate.reached.wait()
        epoch = (await feed.identity(observer)).epoch
        await observer.js.delete_stream(JETSTREAM)
        # The second relay has begun its epoch, and looked for what to fill the stream with: nothing.
        second = Gate()
        async with feed.relay(database_url, own_nats.url, held_before(second)):
            await second.reached.wait()
            await feed.complete(observer, other_than=epoch)
            gate.open.set()
            await asyncio.wait_for(refused.wait(), 5)
            second.open.set()
            await writer.all_published()
            await feed.assert_whole(observer, writer)


async def test_what_another_relay_marks_during_the_walk_is_not_taken_for_a_strangers(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, marked = Gate(), Outbox.marked

    async def held_marked(self: Outbox, epoch: str, positions: Sequence[int]) -> set[int]:
        if not gate.reached.is_set():
            await gate()
        return await marked(self, epoch, positions)

    class DyingOnce(Around):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            if not gate.reached.is_set():
                raise ConnectionError("died")

    monkeypatch.setattr(Outbox, "marked", held_marked)
    async with feed.relay(database_url, own_nats.url, DyingOnce) as relay:
        await writer.commit("x", "y")
        await gate.reached.wait()
        epoch = (await feed.identity(relay.connection)).epoch
        engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
        async with Outbox(engine) as other:
            positions = [row[0] for row in await writer.rows("SELECT position FROM outbox ORDER BY position")]
            await other.mark(await other.state(), positions, len(positions))
        await engine.dispose()
        gate.open.set()
        await writer.commit("x", "y")
        await writer.all_published()
        await feed.assert_whole(relay.connection, writer)
        assert (await feed.identity(relay.connection)).epoch == epoch


async def test_a_mark_of_another_epoch_or_another_end_is_refused(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    await writer.commit("x", "y")
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.all_published()
        await relay.stop()
        async with relay.outbox as outbox:
            state = await outbox.state()
            await writer.commit("x")
            for stale in (
                State(state.incarnation, state.epoch, 1),
                State(state.incarnation, state.incarnation, 2),
                State(state.epoch, state.epoch, 2),
            ):
                with pytest.raises(EpochSuperseded):
                    await outbox.mark(stale, [3] * (3 - stale.sequence), 3)
            with pytest.raises(ValueError, match="do not reach"):
                await outbox.mark(state, [3], 4)
            assert await outbox.state() == state
        assert await writer.pending() == 1


@pytest.mark.parametrize("how", ["deleted", "purged", "holed"])
async def test_a_stream_wiped_or_damaged_while_nothing_happens_is_made_anew_with_all_events(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection, how: str
) -> None:
    async with feed.relay(database_url, own_nats.url):
        for _ in range(30):
            await writer.commit(*"abcdefghijklmnopqrstuvwxyz" * 3)
        await writer.all_published()
        before = await feed.complete(observer)
        match how:
            case "deleted":
                await observer.js.delete_stream(JETSTREAM)
            case "purged":
                await observer.js.purge_stream(JETSTREAM)
            case "holed":
                await observer.js.delete_msg(JETSTREAM, 100)
        await feed.complete(observer, other_than=before.epoch)
        await feed.assert_whole(observer, writer)


async def test_a_stream_deleted_again_and_again_under_load_is_made_anew_with_all_events(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        epoch = (await feed.complete(observer)).epoch
        async with load(writer):
            for _ in range(3):
                await asyncio.sleep(0.5)
                await observer.js.delete_stream(JETSTREAM)
                epoch = (await feed.complete(observer, other_than=epoch)).epoch
        await writer.all_published()
        await feed.assert_whole(observer, writer)


async def test_events_that_commit_late_below_a_stream_being_filled_are_not_lost(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    """A position below those filled already, pending while filling goes on and after."""
    gate = Gate()

    class Slow(EventStream):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            last = await super().publish(epoch, events, after)
            if not gate.reached.is_set():
                await gate()
            return last

    async with writer.transaction() as held:
        await writer.append(held, "late", "x1")
        await writer.commit(*[f"x{n}" for n in range(2, 1_500)])
        async with feed.relay(database_url, own_nats.url):
            await writer.all_published()
        await observer.js.delete_stream(JETSTREAM)
        async with feed.relay(database_url, own_nats.url, stream=Slow):
            await gate.reached.wait()
            assert not (await feed.identity(observer)).complete
            await writer.append(held, "late")
            await held.commit()
            gate.open.set()
            await feed.complete(observer)
            await writer.all_published()
            await feed.assert_whole(observer, writer)


async def test_filling_a_stream_goes_on_where_another_relay_left_off(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    for _ in range(5):
        await writer.commit(*[str(n) for n in range(1_000)])
    async with feed.relay(database_url, own_nats.url):
        await writer.all_published()
    await writer.rows("DELETE FROM outbox")
    await writer.commit("new")
    await observer.js.delete_stream(JETSTREAM)
    batches = 0

    class Dying(EventStream):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            nonlocal batches
            last = await super().publish(epoch, events, after)
            batches += 1
            if batches == 2:
                dying.set()
                await asyncio.Event().wait()
            return last

    dying = asyncio.Event()
    async with feed.relay(database_url, own_nats.url, stream=Dying):
        await dying.wait()
    interrupted = await feed.identity(observer)
    assert (interrupted.complete, interrupted.last_sequence) == (False, 2_000)
    async with feed.relay(database_url, own_nats.url):
        await writer.all_published()
        resumed = await feed.identity(observer)
        await feed.assert_whole(observer, writer)
    assert (resumed.complete, resumed.epoch, resumed.created) == (
        True,
        interrupted.epoch,
        interrupted.created,
    )


async def lose_tail(observer: Connection, kept: int) -> Found:
    """Make the stream what a power failure leaves: itself, without its last messages; return what it held."""
    before = await feed.contents(observer)
    info = await observer.js.stream_info(JETSTREAM)
    await observer.js.delete_stream(JETSTREAM)
    await observer.js.add_stream(info.config)
    assert info.config.subjects
    prefix = info.config.subjects[0].removesuffix(">")
    for sequence in range(1, kept + 1):
        event = before[sequence]
        name = subject(event.stream).removeprefix("diptych.events.")
        await observer.js.publish(prefix + name, event.data, headers=to_headers(event))
    return before


async def test_what_the_stream_has_lost_is_published_again_under_its_old_sequences(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        for _ in range(20):
            await writer.commit(*"abcdefgabcdefg")
        await writer.all_published()
        epoch = (await feed.identity(observer)).epoch
    await writer.commit("a", "b")
    before = await lose_tail(observer, 100)
    async with feed.relay(database_url, own_nats.url):
        await writer.all_published()
        found = await feed.assert_whole(observer, writer)
    assert (await feed.identity(observer)).epoch == epoch
    assert at_sequences(found).items() >= at_sequences(before).items()


async def test_a_loss_that_the_outbox_no_longer_remembers_makes_the_stream_anew(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        for _ in range(20):
            await writer.commit(*"abcdefg")
        await writer.all_published()
        epoch = (await feed.identity(observer)).epoch
    await writer.rows("DELETE FROM outbox WHERE sequence = 120")
    await lose_tail(observer, 100)
    async with feed.relay(database_url, own_nats.url):
        await feed.complete(observer, other_than=epoch)
        await feed.assert_whole(observer, writer)


async def test_a_loss_is_noticed_while_nothing_happens(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abcdefg")
        await writer.all_published()
        before = await lose_tail(observer, 3)

        async def whole() -> bool:
            return (await feed.identity(observer)).last_sequence == 7

        await until(whole)
        assert at_sequences(await feed.contents(observer)) == at_sequences(before)


async def test_a_restored_database_gets_a_stream_of_its_own(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abcdefg")
        await writer.all_published()
        before = await feed.complete(observer)
        await writer.rows("UPDATE relay_state SET incarnation = gen_random_uuid()")
        after = await feed.complete(observer, other_than=before.epoch)
        await feed.assert_whole(observer, writer)
    assert after.incarnation != before.incarnation


async def test_a_filled_stream_of_an_unknown_epoch_is_not_trusted(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    """A backup of JetStream, of an earlier epoch: what was published since is not pending, and not in it."""
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abc")
        await writer.all_published()
        old = await feed.contents(observer)
        config = (await observer.js.stream_info(JETSTREAM)).config
        await observer.js.delete_stream(JETSTREAM)
        newer = await feed.complete(observer, other_than=(config.metadata or {})["diptych-epoch"])
        await writer.commit(*"abc")
        await writer.all_published()
    await observer.js.delete_stream(JETSTREAM)
    await observer.js.add_stream(config)
    assert len(old) == 3
    async with feed.relay(database_url, own_nats.url):

        async def replaced() -> bool:
            epoch = (await feed.complete(observer)).epoch
            return epoch not in (newer.epoch, (config.metadata or {})["diptych-epoch"])

        await until(replaced)
        await feed.assert_whole(observer, writer)


async def test_the_relay_goes_on_when_nats_was_away(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with feed.relay(database_url, own_nats.url):
        async with load(writer):
            await until_published(writer, 100)
            await own_nats.kill()
            await asyncio.sleep(0.5)
            await own_nats.start()
        await writer.all_published()
        await until(lambda: observer.connected)
        await feed.assert_whole(observer, writer)


async def test_the_relay_goes_on_when_postgresql_was_away(
    own_postgres: Postgres, own_nats: Nats, observer: Connection
) -> None:
    url = own_postgres.url_of(TEMPLATE)
    async with feed.relay(url, own_nats.url):
        async with feed.writer(url) as writer:
            await writer.commit("x", "y")
            await writer.all_published()
        await own_postgres.kill()
        await own_postgres.start()
        async with feed.writer(url) as writer:
            await writer.commit("z")
            await writer.all_published()
            await feed.assert_whole(observer, writer)


async def until_published(writer: Writer, more: int) -> None:
    (start,) = (await writer.rows("SELECT sequence FROM relay_state"))[0]

    async def published() -> bool:
        (sequence,) = (await writer.rows("SELECT sequence FROM relay_state"))[0]
        return bool(sequence >= start + more)

    await until(published)
