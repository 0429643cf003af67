"""All feeds share one reading of the stream; one that fails or is far behind does not delay the others."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.feed_signatures import SIGNATURE
from devstack.servers import Nats
from process_manager.deadlines.deadlines import Deadlines
from process_manager.deadlines.statements import WRITE
from process_manager.engine import Engine
from process_manager.feeds import feed_group
from process_manager.feeds.event_consumer import EventConsumer
from process_manager.feeds.feed_source import FeedSource, Source
from process_manager.feeds.stream_reads import read_stream_end_from, read_stream_from
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.leases import Leases
from process_manager.postgres.due_work import Checkpoint, Feed
from process_manager.postgres.statement_session import StatementSession
from process_manager.postgres.store import SagaStore
from process_manager.queries.awaited_events import StreamEnd
from process_manager.queries.feed_reader import FeedReader
from process_manager.saga import Saga
from process_manager.sagas.inventory import RESERVATIONS
from runtime.jetstream import Connection, Cursor, SharedReader, StreamIdentity, connect
from runtime.process.lifecycle import cancel_and_wait
from tests.support.builders.reservations import ended, made
from tests.support.harness.account_watch import ACCOUNT_WATCH
from tests.support.harness.keys import get_ring, sign_events
from tests.support.harness.projection_run import EventPublisher
from tests.support.harness.saga_run import cashed, paid, written
from tests.support.harness.shared_reading import HeldMessages
from tests.support.harness.waiting import until
from tests.support.ledger.sagas import COLLECTION

BROKEN = streams.partition("broken")


class FaultyEngine(Engine):
    """Fails on one feed while the test says so."""

    fails = False
    failures = 0

    async def deliver_events(
        self, feed: Feed, events: Sequence[RecordedEvent], old: Checkpoint, new: Checkpoint
    ) -> Collection[str]:
        if self.fails and (feed.saga, feed.partition) == (COLLECTION.name, BROKEN):
            self.failures += 1
            raise ZeroDivisionError
        return await super().deliver_events(feed, events, old, new)


@pytest.fixture
async def connection(own_nats: Nats) -> AsyncIterator[Connection]:
    async with await connect(own_nats.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        yield connection


@pytest.fixture
async def publisher(connection: Connection) -> EventPublisher:
    publisher = EventPublisher(connection)
    await publisher.create()
    return publisher


@asynccontextmanager
async def consuming(
    store: SagaStore, connection: Connection, sagas: Sequence[Saga[Any]] = (COLLECTION, ACCOUNT_WATCH)
) -> AsyncIterator[FaultyEngine]:
    engine = FaultyEngine(store, sagas, read_stream_from(connection))
    leases, stopping = Leases(store, "ledger"), asyncio.Event()
    deadlines = Deadlines(engine, store)
    consumer = EventConsumer(connection, engine, store, leases, StreamReplayer(engine, leases), deadlines)
    tasks = [asyncio.create_task(each.run(stopping)) for each in (leases, consumer)]
    try:
        yield engine
    finally:
        stopping.set()
        _, running = await asyncio.wait(tasks, timeout=10)
        assert not running
        await cancel_and_wait(*tasks)
        await leases.leave()
        await deadlines.close()


async def count_consumers(connection: Connection) -> int:
    return len(await connection.js.consumers_info(streams.JETSTREAM))


async def read_instances(store: SagaStore) -> dict[str, Any]:
    async with store.engine.connect() as connection:
        query = f"SELECT id, status FROM sagas WHERE saga = '{COLLECTION.name}'"
        return {row.id: row.status for row in await connection.exec_driver_sql(query)}


async def test_all_feeds_share_one_consumer(
    store: SagaStore, connection: Connection, publisher: EventPublisher
) -> None:
    ids = [f"c-{number}" for number in range(40)]
    await publisher.publish(*(written(id_) for id_ in ids))
    async with consuming(store, connection):

        async def are_delivered() -> bool:
            return (await read_instances(store)).keys() == set(ids)

        await until(are_delivered)
        assert await count_consumers(connection) == 1
        ids.append("one-more")
        await publisher.publish(written("one-more"), paid("a"))
        await until(are_delivered)


async def test_no_saga_begins_with_an_event_that_the_relay_has_not_signed(
    store: SagaStore, connection: Connection, publisher: EventPublisher
) -> None:
    await publisher.publish(written("first"))
    (forged,) = sign_events(publisher.epoch, [written("forged")], after=10)  # signed for another place
    unsigned = {name: value for name, value in forged.headers.items() if name != SIGNATURE}
    for headers in (unsigned, forged.headers):
        await connection.js.publish(forged.subject, forged.data, headers=headers)
    await publisher.publish(*(written(f"c-{number}") for number in range(streams.PARTITIONS * 3)))
    ids = {"first", *(f"c-{number}" for number in range(streams.PARTITIONS * 3))}
    async with consuming(store, connection, [COLLECTION]):

        async def are_delivered() -> bool:
            return (await read_instances(store)).keys() >= ids

        await until(are_delivered)
        end = await read_stream_end_from(connection)("ledger.cheque.forged")
        assert end == StreamEnd(publisher.epoch, 3, 0)  # a place to pass, without an event
    assert (await read_instances(store)).keys() == ids


async def test_a_feed_that_fails_delays_no_other_and_rejoins(
    store: SagaStore, connection: Connection, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_group, "REJOIN_INTERVAL", 0.5)
    async with consuming(store, connection) as engine:
        engine.fails = True
        await publisher.publish(written("broken"), *(written(f"c-{number}") for number in range(20)))
        await until(lambda: engine.failures > 2)
        others = {f"c-{number}" for number in range(20) if streams.partition(f"c-{number}") != BROKEN}

        async def others_are_delivered() -> bool:
            return (await read_instances(store)).keys() >= others

        await until(others_are_delivered)
        assert "broken" not in await read_instances(store)
        engine.fails = False

        async def all_are_delivered() -> bool:
            return len(await read_instances(store)) == 21

        await until(all_are_delivered)
        await publisher.publish(cashed("broken"))
        await until(lambda: count_is(connection, 1))


async def count_is(connection: Connection, count: int) -> bool:
    return await count_consumers(connection) == count


async def test_a_feed_that_is_far_behind_reads_by_itself_and_joins(
    store: SagaStore, connection: Connection, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_group, "REJOIN_INTERVAL", 0.5)
    monkeypatch.setattr(feed_group, "MAX_DISTANCE", 50)
    await publisher.publish(written("idle"))
    async with consuming(store, connection):
        await until(lambda: has_instance(store, "idle"))
    busy = next(f"b-{n}" for n in range(100) if streams.partition(f"b-{n}") != streams.partition("idle"))
    await publisher.publish(written(busy), *(cashed(busy, version) for version in range(2, 300)))
    async with consuming(store, connection):
        await until(lambda: has_instance(store, busy))
        await publisher.publish(written("late"), cashed("idle"))
        await until(lambda: has_instance(store, "late"))
        await until(lambda: has_version(store, "idle", 2))
        await until(lambda: count_is(connection, 1))
    assert await has_version(store, busy, 299)


async def has_instance(store: SagaStore, id_: str) -> bool:
    return id_ in await read_instances(store)


async def has_version(store: SagaStore, id_: str, version: int) -> bool:
    async with store.engine.connect() as connection:
        query = f"SELECT version FROM sagas WHERE saga = '{COLLECTION.name}' AND id = '{id_}'"
        return (await connection.exec_driver_sql(query)).scalar() == version


async def test_a_wrong_position_loses_no_event_to_an_error(
    store: SagaStore, connection: Connection, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, wrong_reads = HeldMessages(monkeypatch), 0

    def read_wrong_positions(cursor: Cursor) -> dict[int, int]:
        nonlocal wrong_reads
        wrong_reads += 1
        return dict.fromkeys(cursor.positions, 2)

    await publisher.publish(written("a"))
    async with consuming(store, connection):
        await until(lambda: has_instance(store, "a"))
        held.is_holding = True
        await publisher.publish(written("b"))
        with monkeypatch.context() as patches:
            patches.setattr(Cursor, "read_positions", read_wrong_positions)
            await until(lambda: wrong_reads > 2 * streams.PARTITIONS)
        held.is_holding = False
        for consumer in await connection.js.consumers_info(streams.JETSTREAM):
            await connection.js.delete_consumer(streams.JETSTREAM, consumer.name)
        await until(lambda: has_instance(store, "b"))


async def test_feeds_with_old_checkpoints_read_apart_after_an_error(
    store: SagaStore, connection: Connection, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_group, "MAX_DISTANCE", 50)
    monkeypatch.setattr(feed_group, "REJOIN_INTERVAL", 60.0)
    open_cursor, sizes = SharedReader.open, list[int]()

    async def note_size(shared: SharedReader, epoch: str, starts: Mapping[int, int], types: Any) -> Cursor:
        sizes.append(len(starts))
        return await open_cursor(shared, epoch, starts, types)

    async with consuming(store, connection, [COLLECTION]):
        await publisher.publish(written("a"))
        await until(lambda: has_instance(store, "a"))
        await publisher.publish(*(cashed("a", version) for version in range(2, 100)))
        await until(lambda: has_version(store, "a", 99))
        monkeypatch.setattr(SharedReader, "open", note_size)
        for consumer in await connection.js.consumers_info(streams.JETSTREAM):
            await connection.js.delete_consumer(streams.JETSTREAM, consumer.name)
        await until(lambda: len(sizes) >= streams.PARTITIONS)
        await publisher.publish(written("b"))
        await until(lambda: has_instance(store, "b"))
    assert set(sizes) == {1}


async def test_positions_that_passed_over_a_delivered_event_are_discarded(
    store: SagaStore, connection: Connection
) -> None:
    engine = Engine(store, [COLLECTION], read_stream_from(connection))
    leases = Leases(store, "ledger")
    source = Source(
        connection,
        SharedReader(connection, lambda: frozenset({1, 2})),
        FeedReader(store.statements),
        leases,
        StreamReplayer(engine, leases),
    )
    feeds = FeedSource(COLLECTION.name, "ledger.cheque", source)
    identity = StreamIdentity("e-1", "i-1", True, 1, 60, 60, None)
    checkpoints = {1: ("e-1", 10), 2: ("e-1", 10)}
    feeds.note_positions("e-1", {1: 40, 2: 50})
    feeds.note_delivery(1, 41)
    assert feeds.find_starts(checkpoints, identity) == {1: 41, 2: 51}
    feeds.note_delivery(1, 40)
    assert feeds.find_starts(checkpoints, identity) == {1: 11, 2: 11}


async def test_a_stream_that_is_created_later_or_again_is_read(
    store: SagaStore, connection: Connection
) -> None:
    publisher = EventPublisher(connection)
    async with consuming(store, connection):
        await publisher.create()
        await publisher.publish(written("a"))
        await until(lambda: has_instance(store, "a"))
        await publisher.delete()
        await publisher.create()
        await publisher.publish(written("a"), written("b"), cashed("a"))
        await until(lambda: has_instance(store, "b"))
        await until(lambda: has_version(store, "a", 2))


async def test_deadlines_that_end_within_a_moment_share_statements(
    store: SagaStore, connection: Connection, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_group, "BATCH_INTERVAL", 1.0)
    statements, fetch = list[str](), StatementSession.fetch

    async def log(self: StatementSession, statement: str, *parameters: Any) -> Any:
        if statement == WRITE:
            statements.append(statement)
        return await fetch(self, statement, *parameters)

    async def read_last_sequence() -> int:
        query = f"SELECT coalesce(max(sequence), 0) FROM saga_checkpoints WHERE saga = '{RESERVATIONS.name}'"
        async with store.engine.connect() as pool:
            return int((await pool.exec_driver_sql(query)).scalar_one())

    async def are_delivered(count: int) -> bool:
        return await read_last_sequence() == count

    far, count = datetime.now(UTC) + timedelta(days=1), 100
    async with consuming(store, connection, [RESERVATIONS]):
        await publisher.publish(*(made(f"first-{number}", far) for number in range(count)))
        await until(lambda: are_delivered(count))
        monkeypatch.setattr(StatementSession, "fetch", log)
        for number in range(count):
            await publisher.publish(made(f"r-{number}", far))
            await publisher.publish(ended(f"r-{number}", 2))
        await until(lambda: are_delivered(3 * count))
    assert 0 < len(statements) < count, "one by one there are two for each"
    async with store.engine.connect() as pool:
        rows = await pool.exec_driver_sql("SELECT id FROM saga_deadlines WHERE id LIKE 'r-%%'")
        assert rows.all() == []
