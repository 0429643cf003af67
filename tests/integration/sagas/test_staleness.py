"""The age of answers about sagas: counted from the oldest committed event that a saga has not processed."""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from contracts import streams
from process_manager.postgres.store import SagaStore
from process_manager.queries import staleness as module
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.query_service import create_service
from process_manager.queries.staleness import SagaStaleness, add_staleness
from runtime.codec import message_class
from runtime.grpc.metadata import STALENESS
from runtime.grpc.rpc_error import RpcError
from runtime.jetstream import Publication, StreamCheck, StreamIdentity
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN
from tests.support.harness.saga_run import SagaRun, cashed, paid, written
from tests.support.harness.waiting import until
from tests.support.ledger.sagas import COLLECTION


class Feed:
    """What the relay and JetStream say; the sequences are those of a `SagaRun`, in partition 0."""

    def __init__(self, run: SagaRun) -> None:
        self.publication: Publication | None = None
        self.last_sequence, self.ends = 0, dict[str, int]()
        self.epoch = "epoch"
        self.staleness = SagaStaleness(
            run.sagas,
            FeedReader(run.store.engine),
            run.store.progress.read_feeds,
            lambda: StreamCheck(self.publication, self.stream),
            self.read_identity,
            self.read_ends,
        )
        self.service = add_staleness(
            create_service(run.queries), self.staleness, [saga.name for saga in run.sagas]
        )

    def publish(self, stream_type: str, sequence: int) -> None:
        self.last_sequence += 1
        self.ends[stream_type] = sequence

    async def confirm(self, seconds_ago: float = 0.0) -> None:
        """Confirm what is published, and take a sample."""
        self.publication = Publication(monotonic() - seconds_ago, self.epoch, self.last_sequence)
        await self.staleness.take_sample()

    @property
    def stream(self) -> StreamIdentity:
        return StreamIdentity(self.epoch, "i", True, 1, self.last_sequence, self.last_sequence, None)

    async def read_identity(self) -> StreamIdentity:
        return self.stream

    async def read_ends(self, ends: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        assert {partition for _, partition in ends} == set(range(streams.PARTITIONS))
        return {end: self.ends.get(end[0], 0) if end[1] == 0 else 0 for end in ends}


class Context:
    """Keeps the trailing metadata of a call."""

    trailing: Mapping[str, str]

    def time_remaining(self) -> None:
        return None

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = dict(metadata)


async def read_bound(feed: Feed, method: str = "ListSagas", **request: Any) -> int | None:
    """Return the bound of an answer in milliseconds; None if it has none."""
    context: Any = Context()
    request_type = message_class(feed.service.descriptor.methods_by_name[method].input_type)
    with suppress(RpcError):  # errors say it, too
        await feed.service.handlers[method](request_type(**request), context)
    bound = context.trailing.get(STALENESS)
    return None if bound is None else int(bound)


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, COLLECTION, ACCOUNT_WATCH)


@pytest.fixture
def feed(run: SagaRun, monkeypatch: pytest.MonkeyPatch) -> Feed:
    monkeypatch.setattr(module, "BUSY_INTERVAL", 0.0)
    return Feed(run)


async def test_it_is_unknown_until_the_relay_has_confirmed_the_stream(run: SagaRun, feed: Feed) -> None:
    await feed.staleness.take_sample()
    assert await read_bound(feed) is None
    await feed.confirm(seconds_ago=5)
    bound = await read_bound(feed)
    assert bound is not None
    assert 5_000 <= bound < 10_000


async def test_it_counts_from_the_last_moment_whose_events_a_saga_has_processed(
    run: SagaRun, feed: Feed
) -> None:
    await feed.confirm(seconds_ago=60)
    await run.deliver(written("c-1"))
    feed.publish("ledger.cheque", 2)  # the second one is not delivered
    await feed.confirm(seconds_ago=30)
    name = COLLECTION.name
    behind = await read_bound(feed, saga=name)
    assert behind is not None
    assert behind >= 60_000
    unaffected = await read_bound(feed, "GetSaga", saga=ACCOUNT_WATCH.name, id="none")
    assert unaffected is not None
    if "ledger.cheque" not in {each.stream_type for each in ACCOUNT_WATCH.subscribes_to}:
        assert 30_000 <= unaffected < 60_000
    await run.deliver(cashed("c-1"))
    await feed.staleness.take_sample()
    current = await read_bound(feed, saga=name)
    assert current is not None
    assert 30_000 <= current < 60_000


async def test_it_grows_while_nothing_is_confirmed(run: SagaRun, feed: Feed) -> None:
    await feed.confirm()
    feed.publication = None
    first = await read_bound(feed)
    await feed.staleness.take_sample()
    second = await read_bound(feed)
    assert first is not None
    assert second is not None
    assert second >= first


async def test_a_stream_that_lost_messages_or_was_replaced_confirms_nothing(run: SagaRun, feed: Feed) -> None:
    await feed.confirm(seconds_ago=60)
    feed.publication = Publication(monotonic(), "epoch", feed.last_sequence + 1)
    await feed.staleness.take_sample()
    bound = await read_bound(feed)
    assert bound is not None
    assert bound >= 60_000
    feed.publication = Publication(monotonic(), "another", 0)
    await feed.staleness.take_sample()
    assert (await read_bound(feed) or 0) >= 60_000


async def test_a_saga_with_events_that_wait_has_no_bound(run: SagaRun, feed: Feed) -> None:
    await run.deliver(paid("a", amount=BROKEN))
    await feed.confirm()
    assert await read_bound(feed, saga=ACCOUNT_WATCH.name) is None
    assert await read_bound(feed) is None  # of all sagas
    assert await read_bound(feed, saga=COLLECTION.name) is not None


async def test_at_rest_the_checkpoints_are_not_read_again(
    run: SagaRun, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read_checkpoints = FeedReader.read_checkpoints

    async def count_reads(reader: FeedReader, sagas: Collection[str]) -> Mapping[Any, Any]:
        nonlocal reads
        reads += 1
        return await read_checkpoints(reader, sagas)

    monkeypatch.setattr(FeedReader, "read_checkpoints", count_reads)
    await run.deliver(written("c-1"))
    feed.publish("ledger.cheque", 1)
    for _ in range(3):
        await feed.confirm()
    assert reads == 1
    assert await read_bound(feed, saga=COLLECTION.name) is not None
    await run.deliver(cashed("c-1"))
    await feed.staleness.take_sample()
    assert reads == 2


async def test_a_check_of_the_stream_begins_a_sample(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 600.0)
    feed.publication = Publication(monotonic() - 60, "epoch", 0)

    async def is_sampled() -> bool:
        return await read_bound(feed) is not None

    sampling = asyncio.create_task(feed.staleness.run())
    try:
        await until(is_sampled)
        feed.publication = Publication(monotonic(), "epoch", 0)
        feed.staleness.note_check()

        async def is_recent() -> bool:
            return (await read_bound(feed) or 60_000) < 60_000

        await until(is_recent)
    finally:
        await cancel_and_wait(sampling)


async def test_an_event_that_waits_since_the_checkpoints_are_read_is_noticed(
    run: SagaRun, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_checkpoints = FeedReader.read_checkpoints

    async def fail_before(reader: FeedReader, sagas: Collection[str]) -> Mapping[Any, Any]:
        await run.deliver(paid("a", amount=BROKEN))
        return await read_checkpoints(reader, sagas)

    await feed.confirm()
    await run.deliver(paid("b", amount=1))
    monkeypatch.setattr(FeedReader, "read_checkpoints", fail_before)
    await feed.staleness.take_sample()
    assert await read_bound(feed, saga=ACCOUNT_WATCH.name) is None
