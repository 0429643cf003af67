"""Queries with a consistency token wait until the sagas have processed what it names."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from contracts import incarnations, streams
from process_manager.postgres.due_work import NO_CHECKPOINT, Feed
from process_manager.postgres.store import SagaStore
from process_manager.queries import awaited_events
from process_manager.queries.awaited_events import AwaitedEvents, StreamEnd
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.freshness import Freshness
from process_manager.saga import Saga
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import DEADLINE_MARGIN
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN
from tests.support.harness.freshness import make_waits
from tests.support.harness.keys import TOKENS, mint_token
from tests.support.harness.saga_run import INCARNATION, SagaRun, create_freshness, paid, written
from tests.support.harness.waiting import until
from tests.support.ledger.sagas import COLLECTION


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An item for each check that has ended; what waiting queries read by themselves before is none."""
    checks, check = list[object](), AwaitedEvents._check

    async def check_and_count(self: AwaitedEvents, required: Any) -> None:
        await check(self, required)
        checks.append(required)

    monkeypatch.setattr(AwaitedEvents, "_check", check_and_count)
    return checks


async def deliver_all(run: SagaRun, *events: Any) -> None:
    """Deliver the events in their own partitions."""
    for each in events:
        run.stream_events.append(each)
        type_ = streams.stream_type(each.stream)
        feed = Feed(run.sagas[0].name, type_, streams.partition(streams.aggregate_id(each.stream)))
        checkpoint = "epoch", len(run.stream_events)
        await run.engine.deliver_events(feed, [each], run.checkpoints.get(feed, NO_CHECKPOINT), checkpoint)
        run.checkpoints[feed] = checkpoint


def token_of(**versions: int) -> str:
    """Return a token of ledger streams, given as `account_a=1`."""
    names = {f"ledger.{name.replace('_', '.', 1)}": version for name, version in versions.items()}
    return mint_token(INCARNATION, names)


async def is_behind(run: SagaRun, saga: Saga[Any], token: str) -> bool:
    try:
        await create_freshness(run).wait_for([saga], token, DEADLINE_MARGIN)
    except RpcError as error:
        assert error.reason == "VIEW_BEHIND"
        return True
    return False


async def test_a_query_with_a_token_waits_for_the_tokens_event(store: SagaStore) -> None:
    run = SagaRun(store, COLLECTION)
    token = token_of(cheque_c=1, account_a=9)
    waiting = asyncio.create_task(create_freshness(run).wait_for([COLLECTION], token, 30))
    assert (await is_behind(run, COLLECTION, token), waiting.done()) == (True, False)
    await run.deliver(written("c"))
    await asyncio.wait_for(waiting, 30)


@pytest.mark.parametrize(("direction", "reason"), [(-1, "VIEW_REBUILDING"), (1, "TOKEN_OUTDATED")])
async def test_a_token_of_another_incarnation_is_rejected(
    store: SagaStore, direction: int, reason: str
) -> None:
    later = incarnations.create(INCARNATION)
    token_incarnation, incarnation = (later, INCARNATION) if direction < 0 else (INCARNATION, later)
    with pytest.raises(RpcError) as error:
        await create_freshness(SagaRun(store, COLLECTION), incarnation).wait_for(
            [COLLECTION], mint_token(token_incarnation, {}), 30
        )
    assert error.value.reason == reason


async def test_another_stream_is_processed_once_its_last_event_is_passed(store: SagaStore) -> None:
    run, token = SagaRun(store, ACCOUNT_WATCH), token_of(cheque_c=2)
    assert await is_behind(run, ACCOUNT_WATCH, token)
    await deliver_all(run, written("c"))
    assert await is_behind(run, ACCOUNT_WATCH, token)
    run.stream_events.append(written("c", version=2, account="b"))  # published, not delivered yet
    assert await is_behind(run, ACCOUNT_WATCH, token)
    run.stream_events.pop()
    await deliver_all(run, written("c", version=2, account="b"))
    assert not await is_behind(run, ACCOUNT_WATCH, token)


async def test_a_failed_input_or_a_parked_stream_keeps_queries_waiting(store: SagaStore) -> None:
    run = SagaRun(store, ACCOUNT_WATCH)
    await deliver_all(run, written("c", BROKEN), written("d", account="broken-key"), written("e"))
    assert await is_behind(run, ACCOUNT_WATCH, token_of(cheque_c=1))
    assert await is_behind(run, ACCOUNT_WATCH, token_of(cheque_d=1))
    assert not await is_behind(run, ACCOUNT_WATCH, token_of(cheque_e=1))


async def test_a_stream_that_a_saga_passed_over_is_processed(store: SagaStore) -> None:
    from_now = replace(ACCOUNT_WATCH, begins="now")
    run, before = SagaRun(store, from_now), datetime(2020, 1, 1, tzinfo=UTC)
    await deliver_all(run, paid("a", at=before))
    assert await run.read_sagas() == {}
    assert not await is_behind(run, from_now, token_of(account_a=1))
    assert await is_behind(run, from_now, token_of(account_a=2))


async def test_waiting_queries_share_their_reads(store: SagaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All wait for the same events, one half of them for those of an instance's own stream."""
    statements: list[str] = []
    event.listen(store.engine.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    run = SagaRun(store, COLLECTION, ACCOUNT_WATCH)
    freshness = create_freshness(run)

    async def wait(saga: Saga[Any]) -> str:
        with pytest.raises(RpcError) as error:
            await freshness.wait_for([saga], token_of(cheque_c=1), 1.5)
        return error.value.reason

    outcomes = await asyncio.gather(*(wait(saga) for _ in range(50) for saga in (COLLECTION, ACCOUNT_WATCH)))
    assert set(outcomes) == {"VIEW_BEHIND"}
    # Each query may read once by itself; from then on one read a check serves all, ten checks a second.
    assert len(statements) < 100 + 40


@pytest.mark.parametrize("saga", [COLLECTION, ACCOUNT_WATCH], ids=["own stream", "another stream"])
async def test_a_delivery_wakes_waiting_queries(
    store: SagaStore, saga: Saga[Any], monkeypatch: pytest.MonkeyPatch, checks: list[object]
) -> None:
    monkeypatch.setattr(awaited_events, "POLL_INTERVAL", 10.0)
    run = SagaRun(store, saga)
    freshness = create_freshness(run)
    run.engine.after_delivery = freshness.wake
    waiting = asyncio.create_task(freshness.wait_for([saga], token_of(cheque_c=1), 30))
    await until(lambda: len(checks) == 1)  # the next one without a delivery is far
    await deliver_all(run, written("c"))
    await asyncio.wait_for(waiting, 4)


async def test_a_query_of_all_sagas_has_one_deadline(store: SagaStore) -> None:
    run = SagaRun(store, COLLECTION, ACCOUNT_WATCH)
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(RpcError, match="have not processed"):
        await create_freshness(run).wait_for(run.sagas, token_of(cheque_c=1, account_a=1), 2.0)
    assert loop.time() - start < 3.0, "one after the other would take four seconds"


async def test_a_busy_stream_does_not_keep_queries_waiting(
    store: SagaStore, monkeypatch: pytest.MonkeyPatch, checks: list[object]
) -> None:
    """Events behind the token's are published faster than they are delivered."""
    monkeypatch.setattr(awaited_events, "MAX_END_AGE", 0.0)
    run = SagaRun(store, ACCOUNT_WATCH)
    run.stream_events.append(written("c"))
    waiting = asyncio.create_task(create_freshness(run).wait_for([ACCOUNT_WATCH], token_of(cheque_c=1), 30))
    await until(lambda: bool(checks))  # the end of the stream has been read
    run.stream_events.append(written("c", version=2))
    count = len(checks)
    await until(lambda: len(checks) >= count + 2)  # one of them began after the second event
    feed = Feed(ACCOUNT_WATCH.name, "ledger.cheque", streams.partition("c"))
    await run.engine.deliver_events(feed, [run.stream_events[0]], NO_CHECKPOINT, ("epoch", 1))
    await asyncio.wait_for(waiting, 5)


async def test_a_new_epoch_does_not_keep_queries_waiting(store: SagaStore) -> None:
    run = SagaRun(store, ACCOUNT_WATCH)
    ends = [StreamEnd("old", 9, 1), StreamEnd("epoch", 1, 1)]

    async def read_stream_end(stream: str) -> StreamEnd:
        return ends.pop(0) if len(ends) > 1 else ends[0]

    async def read_incarnation() -> str:
        return INCARNATION

    reader = FeedReader(store.engine)
    freshness = Freshness(TOKENS, make_waits(), reader, read_incarnation, read_stream_end)
    feed = Feed(ACCOUNT_WATCH.name, "ledger.cheque", streams.partition("c"))
    await run.engine.deliver_events(feed, [written("c")], NO_CHECKPOINT, ("epoch", 1))
    await asyncio.wait_for(freshness.wait_for([ACCOUNT_WATCH], token_of(cheque_c=1), 30), 5)


async def test_waiting_queries_end_when_postgres_cannot_be_read(
    store: SagaStore, monkeypatch: pytest.MonkeyPatch, checks: list[object]
) -> None:
    run = SagaRun(store, COLLECTION)
    freshness = create_freshness(run)
    waiting = asyncio.create_task(freshness.wait_for([COLLECTION], token_of(cheque_c=1), 30))
    await until(lambda: bool(checks))
    monkeypatch.setattr(FeedReader, "read_versions", fail)
    with pytest.raises(OSError, match="unreachable"):
        await asyncio.wait_for(waiting, 5)


async def fail(*_: object) -> None:
    raise OSError("unreachable")


async def test_waits_for_an_instances_own_stream_do_without_jetstream(store: SagaStore) -> None:
    reads = 0

    async def read_stream_end(stream: str) -> None:
        nonlocal reads
        reads += 1
        if reads > 1:
            await fail()

    async def read_incarnation() -> str:
        return INCARNATION

    run = SagaRun(store, COLLECTION)
    reader = FeedReader(store.engine)
    freshness = Freshness(TOKENS, make_waits(), reader, read_incarnation, read_stream_end)
    own = asyncio.create_task(freshness.wait_for([COLLECTION], token_of(cheque_c=1), 30))
    with pytest.raises(OSError, match="unreachable"):
        await freshness.wait_for([ACCOUNT_WATCH], token_of(cheque_c=1), 30)
    assert not own.done()
    await run.deliver(written("c"))
    await asyncio.wait_for(own, 5)
