"""The chain of a stream: each event has the digest of the one before it and of itself."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from command_server.kernel.ports import EventRow, StoredStream
from contracts.audit.digests import digest_event
from tests.support.builders.long_ledger_streams import AT, add_account
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules.messages import Deposit, Transfer


async def execute(store: MemoryEventStore, *commands: object) -> None:
    """Execute the commands, in as few batches as they fit in."""
    commit = group_commit(store)
    writer = asyncio.create_task(commit.run())
    await asyncio.gather(*(commit.execute(request(command)) for command in commands))
    commit.close()
    await writer


def compute_chain(rows: Sequence[EventRow], previous: bytes = b"") -> list[bytes]:
    chain = []
    for row in rows:
        previous = digest_event(
            previous, row.stream, row.version, row.type, row.recorded_at, row.metadata, row.data
        )
        chain.append(previous)
    return chain


def select(store: MemoryEventStore, stream: str) -> list[EventRow]:
    return [row for row in store.events if row.stream == stream]


async def test_events_of_one_batch_and_of_several_are_one_chain() -> None:
    store = MemoryEventStore()
    await execute(store, Deposit("a", 5), Deposit("a", 6), Transfer("a", "b", 3))
    await execute(store, Deposit("b", 1), Deposit("a", 7))
    for stream in ("ledger.account.a", "ledger.account.b"):
        rows = select(store, stream)
        assert len(rows) > 1
        assert [row.digest for row in rows] == compute_chain(rows)
        assert store.streams[stream].digest == rows[-1].digest


async def test_a_stream_of_an_earlier_release_begins_its_chain_with_the_next_event() -> None:
    store = MemoryEventStore()
    stream = add_account(store, "old", 3)
    await execute(store, Deposit("old", 5), Deposit("old", 6))
    new = [row for row in select(store, stream) if row.digest]
    assert [row.version for row in new] == [4, 5]
    assert [row.digest for row in new] == compute_chain(new)


async def test_the_digest_covers_metadata_about_a_time_set_aside() -> None:
    store = MemoryEventStore(lambda: AT)
    await execute(store, Deposit("a", 5))
    (first,) = select(store, "ledger.account.a")
    state = store.streams["ledger.account.a"]
    ahead = StoredStream(
        state.version, AT + timedelta(hours=1), state.state, 1, state.fingerprint, state.digest
    )
    store.streams["ledger.account.a"] = ahead
    await execute(store, Deposit("a", 6))
    second = select(store, "ledger.account.a")[1]
    assert "time_set_aside" in second.metadata
    assert [second.digest] == compute_chain([second], first.digest)
