"""The contract of the event store, tested on each adapter: memory and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from diptych.ordering.v1.events_pb2 import OrderCancelled
from msgspec.structs import replace

from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import Accepted, Outcome, Rejection
from command_server.kernel.ports import (
    MAX_READ_BYTES,
    Changes,
    EventRow,
    EventStore,
    RequestKey,
    RequestLookup,
    RequestRow,
    StoreConflict,
    StoredEvent,
    StoredRequest,
    StoredSnapshot,
    StoredStream,
    StreamRow,
    Transaction,
)
from command_server.postgres.event_store import PostgresEventStore
from contracts.personal_data import seal
from contracts.subject_keys import RingWrapper, create_keys
from runtime.subject_keys import SubjectKeys
from tests.support.harness.keys import get_ring
from tests.support.harness.memory_event_store import MemoryEventStore

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def memory_store() -> EventStore:
    return MemoryEventStore()


@pytest.fixture
async def postgres_store(database_url: str) -> AsyncIterator[EventStore]:
    store = PostgresEventStore(database_url, SubjectKeys(RingWrapper(get_ring)))
    yield store
    await store.close()


@pytest.fixture(params=["memory_store", "postgres_store"])
def store(request: pytest.FixtureRequest) -> EventStore:
    adapter: EventStore = request.getfixturevalue(request.param)
    return adapter


def stream(version: int, state: str = "{}", name: str = "a.b.1") -> StreamRow:
    return StreamRow(name, "a.b", version, NOW, state, "print", is_new=version == 1)


def event(version: int, name: str = "a.b.1") -> EventRow:
    return EventRow(name, version, "t.Event", bytes([version]), '{"actor": "alice"}', NOW)


def request_row(outcome: Outcome, caller: str = "alice") -> RequestRow:
    return RequestRow(caller, str(uuid4()), "t.Do", b"#", outcome, "a.b.1", None, "c", None, None, 7, NOW)


async def write(store: EventStore, changes: Changes) -> None:
    async with store.begin() as transaction:
        await lock(transaction, *(row.id for row in changes.streams))
        await transaction.commit(changes)


async def lock(transaction: Transaction, *streams: str) -> Mapping[str, StoredStream]:
    return (await transaction.lock_and_find(streams, []))[0]


async def find(transaction: Transaction, *keys: RequestKey) -> RequestLookup:
    return (await transaction.lock_and_find([], keys))[1]


async def test_unwritten_streams_requests_and_events_are_not_found(store: EventStore) -> None:
    async with store.begin() as transaction:
        assert await lock(transaction, "a.b.1") == {}
        assert (await find(transaction, ("alice", str(uuid4())))).requests == {}
        assert await transaction.read_events({"a.b.1": 0}) == {}


async def test_streams_events_and_requests_come_back_as_written(store: EventStore) -> None:
    accepted = request_row(Accepted({"a.b.1": 2, "a.a.1": 1}, NOW))
    rejected = request_row(Rejection("WHY_NOT", RejectionKind.NOT_FOUND, {"id": "1"}))
    await write(store, Changes([replace(stream(2), is_new=True)], [event(1), event(2)], [accepted, rejected]))
    async with store.begin() as transaction:
        assert await lock(transaction, "a.b.1", "a.b.2") == {"a.b.1": StoredStream(2, NOW, "{}", 2, "print")}
        keys = [(row.caller, row.request_id) for row in (accepted, rejected)]
        requests = (await find(transaction, *keys)).requests
        assert list(requests.values()).count(StoredRequest("t.Do", b"#", accepted.outcome)) == 1
        assert list(requests.values()).count(StoredRequest("t.Do", b"#", rejected.outcome)) == 1
        first, second = StoredEvent("t.Event", b"\1"), StoredEvent("t.Event", b"\2")
        assert await transaction.read_events({"a.b.1": 0, "a.b.2": 0}) == {"a.b.1": [first, second]}
        assert await transaction.read_events({"a.b.1": 1}) == {"a.b.1": [second]}
    assert await store.read_chunk("a.b.1", 0, 1) == [first]
    assert await store.read_chunk("a.b.1", 1, 9) == [second]


async def test_an_unlocked_read_returns_the_same_as_a_lock(store: EventStore) -> None:
    await write(store, Changes([stream(1)], [event(1)]))
    async with store.begin() as transaction:
        assert await transaction.read_streams(["a.b.1", "a.b.2"]) == {
            "a.b.1": StoredStream(1, NOW, "{}", 1, "print")
        }


async def test_the_digest_of_the_last_event_comes_back_with_its_stream(store: EventStore) -> None:
    first, second = b"1" * 32, b"2" * 32
    await write(store, Changes([replace(stream(1), digest=first)], [replace(event(1), digest=first)]))
    await write(store, Changes([replace(stream(2), digest=second)], [replace(event(2), digest=second)]))
    async with store.begin() as transaction:
        locked, read = await lock(transaction, "a.b.1"), await transaction.read_streams(["a.b.1"])
    assert [each["a.b.1"].digest for each in (locked, read)] == [second, second]


async def test_a_receipt_keeps_the_commands_own_stream_first(store: EventStore) -> None:
    row = request_row(Accepted({"z.z.1": 1, "a.a.1": 9}, NOW))
    await write(store, Changes(requests=[row]))
    async with store.begin() as transaction:
        (stored,) = (await find(transaction, (row.caller, row.request_id))).requests.values()
    assert isinstance(stored.outcome, Accepted)
    assert list(stored.outcome.versions) == ["z.z.1", "a.a.1"]


async def test_a_streams_row_is_updated(store: EventStore) -> None:
    await write(store, Changes([stream(1)], [event(1)]))
    later = StreamRow("a.b.1", "a.b", 2, NOW + timedelta(1), '{"n": 2}', "other", is_new=False)
    await write(store, Changes([later], [event(2)]))
    async with store.begin() as transaction:
        streams = await lock(transaction, "a.b.1")
    assert streams == {"a.b.1": StoredStream(2, NOW + timedelta(1), '{"n": 2}', 2, "other")}


async def test_a_request_id_belongs_to_its_caller(store: EventStore) -> None:
    row = request_row(Accepted({"a.b.1": 1}, NOW))
    await write(store, Changes(requests=[row]))
    async with store.begin() as transaction:
        assert (await find(transaction, ("mallory", row.request_id))).requests == {}


@pytest.mark.parametrize(
    "make_conflict",
    [
        lambda _: Changes([stream(1)], [event(2)]),
        lambda _: Changes([], [event(1)]),
        lambda row: Changes([], [], [row]),
    ],
    ids=["new stream", "event version", "request id"],
)
async def test_a_taken_key_is_a_conflict_and_changes_nothing(
    store: EventStore, make_conflict: Callable[[RequestRow], Changes]
) -> None:
    row = request_row(Accepted({"a.b.1": 1}, NOW))
    await write(store, Changes([stream(1)], [event(1)], [row]))
    late = make_conflict(row)
    late.events.append(event(1, name="a.b.other"))
    with pytest.raises(StoreConflict):
        await write(store, late)
    async with store.begin() as transaction:
        assert await transaction.read_events({"a.b.other": 0}) == {}


async def test_a_block_that_raises_writes_nothing(store: EventStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.begin() as transaction:
            await lock(transaction, "a.b.1")
            raise ZeroDivisionError
    async with store.begin() as transaction:
        assert await lock(transaction, "a.b.1") == {}


async def test_a_commit_is_durable_when_it_returns(store: EventStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.begin() as transaction:
            await transaction.commit(Changes([stream(1)], [event(1)]))
            assert await store.read_chunk("a.b.1", 0, 9) == [StoredEvent("t.Event", b"\1")]
            raise ZeroDivisionError
    assert await store.read_chunk("a.b.1", 0, 9) == [StoredEvent("t.Event", b"\1")]


async def test_concurrent_writers_of_a_stream_lock_it_one_after_the_other(store: EventStore) -> None:
    await write(store, Changes([stream(1)], [event(1)]))

    async def append() -> None:
        async with store.begin() as transaction:
            version = (await lock(transaction, "a.b.1"))["a.b.1"].version + 1
            await asyncio.sleep(0)  # lets the other writers run
            await transaction.commit(Changes([stream(version)], [event(version)]))

    await asyncio.gather(*(append() for _ in range(4)))
    async with store.begin() as transaction:
        assert (await lock(transaction, "a.b.1"))["a.b.1"].version == 5
        assert len((await transaction.read_events({"a.b.1": 0}))["a.b.1"]) == 5


async def test_the_incarnation_stays_the_same(store: EventStore) -> None:
    async with store.begin() as first:
        incarnation = (await find(first, ("alice", str(uuid4())))).incarnation
    async with store.begin() as second:
        assert (await find(second, ("bob", str(uuid4())))).incarnation == incarnation


async def test_the_time_of_a_lookup_is_later_than_the_locks(store: EventStore) -> None:
    await write(store, Changes([stream(1)], [event(1)]))
    key = ("alice", str(uuid4()))

    async def read_time_under_lock() -> datetime:
        async with store.begin() as transaction:
            return (await transaction.lock_and_find(["a.b.1"], [key]))[1].now

    async with store.begin() as transaction:
        await lock(transaction, "a.b.1")
        waiting = asyncio.create_task(read_time_under_lock())
        times = [(await find(transaction, key)).now for _ in range(20)]  # the other one begins
    times.append(await waiting)
    assert times == sorted(times)


async def test_reads_end_with_the_event_that_reaches_the_limit_of_bytes(store: EventStore) -> None:
    large = replace(event(1), data=b"x" * (MAX_READ_BYTES // 2))
    for name in ("a.b.1", "a.b.2"):
        events = [replace(large, stream=name, version=version) for version in (1, 2, 3)]
        await write(store, Changes([replace(stream(3), id=name)], events))
    assert len(await store.read_chunk("a.b.1", 0, 9)) == 2
    assert len(await store.read_chunk("a.b.1", 2, 9)) == 1
    async with store.begin() as transaction:
        after_one = await transaction.read_events({"a.b.2": 0, "a.b.1": 2})
    assert {name: len(events) for name, events in after_one.items()} == {"a.b.1": 1, "a.b.2": 1}


async def test_a_kept_snapshot_is_replaced_by_later_ones_of_the_same_code_only(store: EventStore) -> None:
    assert await store.read_snapshot("a.b.1", "print") is None
    for version in (5, 7, 6):
        await store.keep_snapshot("a.b.1", "print", StoredSnapshot(version, f'{{"n": {version}}}'))
    await store.keep_snapshot("a.b.1", "other", StoredSnapshot(9, "{}"))
    assert await store.read_snapshot("a.b.1", "print") == StoredSnapshot(7, '{"n": 7}')
    assert await store.read_snapshot("a.b.1", "other") == StoredSnapshot(9, "{}")


async def test_a_stream_has_the_snapshots_of_the_two_codes_that_kept_one_last(store: EventStore) -> None:
    await store.keep_snapshot("a.b.2", "first", StoredSnapshot(1, "{}"))
    for code in ("first", "second", "first", "third"):
        await store.keep_snapshot("a.b.1", code, StoredSnapshot(1, "{}"))
    kept = [await store.read_snapshot("a.b.1", code) for code in ("first", "second", "third")]
    assert kept == [StoredSnapshot(1, "{}"), None, StoredSnapshot(1, "{}")]
    await write(store, Changes([stream(1)], [event(1)]))
    later = StreamRow("a.b.1", "a.b", 2, NOW, '{"n": 2}', "other", is_new=False)
    await write(store, Changes([later], [event(2)], kept_snapshots=["a.b.1"]))
    kept = [await store.read_snapshot("a.b.1", code) for code in ("first", "third", "print")]
    assert kept == [None, StoredSnapshot(1, "{}"), StoredSnapshot(1, "{}")]
    assert await store.read_snapshot("a.b.2", "first") == StoredSnapshot(1, "{}")


async def test_a_snapshot_of_other_code_is_kept_before_it_is_replaced(store: EventStore) -> None:
    await write(store, Changes([stream(1)], [event(1)]))
    later = StreamRow("a.b.1", "a.b", 2, NOW, '{"n": 2}', "other", is_new=False)
    await write(store, Changes([later], [event(2)], kept_snapshots=["a.b.1"]))
    assert await store.read_snapshot("a.b.1", "print") == StoredSnapshot(1, "{}")


async def test_each_person_has_one_key_which_is_stored_with_the_commit(store: EventStore) -> None:
    wrapper = RingWrapper(get_ring)
    (first, _), (second, _) = [await create_keys(wrapper, ["ada", "bob"]) for _ in range(2)]
    async with store.begin() as transaction:
        await lock(transaction)
        assert await transaction.obtain_keys(first) == first
    async with store.begin() as transaction:
        await lock(transaction, "a.b.1")
        assert await transaction.obtain_keys({"ada": first["ada"]}) == {"ada": first["ada"]}
        await transaction.commit(Changes(streams=[stream(1)], events=[event(1)]))
    async with store.begin() as transaction:
        await lock(transaction)
        assert await transaction.obtain_keys(second) == {"ada": first["ada"], "bob": second["bob"]}


async def test_sealed_events_are_read_in_clear(store: EventStore) -> None:
    keys, _ = await create_keys(RingWrapper(get_ring), ["ada"])
    key = (await RingWrapper(get_ring).unwrap(keys.values()))[keys["ada"].id]
    cancelled = OrderCancelled(order_id="1", customer_id="ada", reason="late")
    sealed = OrderCancelled.FromString(cancelled.SerializeToString())
    seal(sealed, "a.b.1", lambda _: key)
    name, data = sealed.DESCRIPTOR.full_name, sealed.SerializeToString()
    async with store.begin() as transaction:
        await lock(transaction, "a.b.1")
        await transaction.obtain_keys(keys)
        row = EventRow("a.b.1", 1, name, data, '{"actor": "alice"}', NOW)
        await transaction.commit(Changes(streams=[stream(1)], events=[row]))
    expected = [StoredEvent(name, cancelled.SerializeToString())]
    assert list(await store.read_chunk("a.b.1", 0, 9)) == expected
    async with store.begin() as transaction:
        await lock(transaction, "a.b.1")
        assert await transaction.read_events({"a.b.1": 0}) == {"a.b.1": expected}
