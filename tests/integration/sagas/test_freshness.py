"""Queries with a consistency token wait until the sagas have processed what it names."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts import incarnations, streams
from process_manager.due_work import NO_CHECKPOINT, Feed
from process_manager.freshness import DEADLINE_MARGIN
from process_manager.saga import Saga
from process_manager.store import SagaStore
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN
from tests.support.harness.keys import mint_token
from tests.support.harness.saga_run import INCARNATION, SagaRun, create_freshness, paid, written
from tests.support.ledger.sagas import COLLECTION


async def deliver_all(run: SagaRun, *events: Any) -> None:
    """Deliver the events in their own partitions."""
    for event in events:
        run.stream_events.append(event)
        type_ = streams.stream_type(event.stream)
        feed = Feed(run.sagas[0].name, type_, streams.partition(streams.aggregate_id(event.stream)))
        checkpoint = "epoch", len(run.stream_events)
        await run.engine.deliver_events(feed, [event], run.checkpoints.get(feed, NO_CHECKPOINT), checkpoint)
        run.checkpoints[feed] = checkpoint


def token_of(**versions: int) -> str:
    """Return a token of ledger streams, given as `account_a=1`."""
    names = {f"ledger.{name.replace('_', '.', 1)}": version for name, version in versions.items()}
    return mint_token(INCARNATION, names)


async def is_behind(run: SagaRun, saga: Saga[Any], token: str) -> bool:
    try:
        await create_freshness(run).wait_for(saga, token, DEADLINE_MARGIN)
    except RpcError as error:
        assert error.reason == "VIEW_BEHIND"
        return True
    return False


async def test_a_query_with_a_token_waits_for_the_tokens_event(store: SagaStore) -> None:
    run = SagaRun(store, COLLECTION)
    token = token_of(cheque_c=1, account_a=9)
    waiting = asyncio.create_task(create_freshness(run).wait_for(COLLECTION, token, 30))
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
            COLLECTION, mint_token(token_incarnation, {}), 30
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
