"""A saga of two streams on the real PostgreSQL: an account, and the cheques that name it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.envelope import RecordedEvent
from process_manager import instance
from process_manager.due_work import NO_CHECKPOINT, Feed
from process_manager.store import SagaStore
from tests.support.harness import account_watch
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN, BROKEN_KEY
from tests.support.harness.saga_run import SagaRun, cashed, paid, written
from tests.support.ledger.stubs import events_v2

ACCOUNTS = Feed(ACCOUNT_WATCH.name, "ledger.account", 0)
CHEQUES = Feed(ACCOUNT_WATCH.name, "ledger.cheque", 0)


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, ACCOUNT_WATCH)


async def read_received(run: SagaRun, id_: str = "a") -> list[tuple[str, int]]:
    sagas = await run.read_sagas()
    return [(stream, version) for stream, version in sagas[id_].state["received"]]


async def test_an_event_goes_to_the_instance_that_its_key_names(run: SagaRun) -> None:
    await run.deliver(paid("a"), paid("b"))
    await run.deliver(written("c", account="a"), written("d", account="b"), cashed("c"))
    assert await read_received(run, "a") == [("ledger.account.a", 1), ("ledger.cheque.c", 1)]
    assert await read_received(run, "b") == [("ledger.account.b", 1), ("ledger.cheque.d", 1)]
    assert {(step.id, step.step) for step in await run.read_due_steps()} == {
        ("a", "deposit-c-1"),
        ("b", "deposit-d-1"),
    }
    (row,) = [row for row in (await run.read_sagas()).values() if row.id == "a"]
    assert row.other_streams == {"ledger.cheque.c": {"version": 1, "failed_input": ""}}


async def test_an_event_of_another_stream_may_begin_an_instance(run: SagaRun) -> None:
    await run.deliver(written("c"))
    await run.deliver(paid("a"))
    assert await read_received(run) == [("ledger.cheque.c", 1), ("ledger.account.a", 1)]


@pytest.mark.parametrize("account", ["", "no valid id", "x" * 65])
async def test_an_event_whose_key_names_no_instance_is_not_delivered(run: SagaRun, account: str) -> None:
    await run.deliver(written("c", account=account))
    assert (await run.read_sagas(), await run.query("SELECT * FROM saga_parked_streams")) == ({}, [])


async def test_redelivered_events_of_both_streams_are_skipped(run: SagaRun) -> None:
    cheques = written("c"), written("c", version=4), written("d")
    await run.deliver(paid("a"), *cheques)
    before = await run.read_sagas()
    await run.redeliver(paid("a"), *cheques)
    assert await run.read_sagas() == before
    assert len(await read_received(run)) == 4


async def test_versions_between_may_belong_to_other_instances(run: SagaRun) -> None:
    await run.deliver(written("c", account="a"), written("c", version=2, account="b"))
    await run.deliver(written("c", version=3, account="a"))
    assert await read_received(run, "a") == [("ledger.cheque.c", 1), ("ledger.cheque.c", 3)]
    assert await read_received(run, "b") == [("ledger.cheque.c", 2)]


def repair(run: SagaRun, event: RecordedEvent, by: RecordedEvent) -> None:
    """Replace a broken event, as if the saga's code had been fixed."""
    run.stream_events[run.stream_events.index(event)] = by


async def test_a_failed_input_of_another_stream_is_read_again_in_order(run: SagaRun) -> None:
    broken = written("c", BROKEN, version=2)
    await run.deliver(paid("a"), written("c"))
    await run.deliver(broken)
    await run.deliver(written("d"), paid("a", version=2))
    blocked = (await run.read_sagas())["a"]
    assert "version 2 of ledger.cheque.c failed" in blocked.blocked_reason
    assert blocked.other_streams["ledger.cheque.c"]["version"] == 1
    repair(run, broken, written("c", version=2))
    await run.deliver(written("c", version=3))
    received = await read_received(run)
    assert [version for stream, version in received if stream == "ledger.cheque.c"] == [1, 2, 3]
    assert (await run.read_sagas())["a"].blocked_reason == ""


async def test_a_retry_reads_every_stream_with_a_failed_input_again(run: SagaRun) -> None:
    broken = written("c", BROKEN), paid("a", amount=BROKEN)
    for event in broken:
        await run.deliver(event)
    await run.deliver(written("c", version=2, account="b"))
    assert (await run.engine.retry(ACCOUNT_WATCH.name, "a", "ada")).status.blocked_reason
    repair(run, broken[0], written("c"))
    repair(run, broken[1], paid("a"))
    retried = await run.engine.retry(ACCOUNT_WATCH.name, "a", "ada")
    assert (retried.status.blocked_reason, retried.version) == ("", 1)
    assert await read_received(run) == [("ledger.account.a", 1), ("ledger.cheque.c", 1)]


async def test_a_subscription_that_was_removed_does_not_block(run: SagaRun, store: SagaStore) -> None:
    await run.deliver(written("c"), written("d", BROKEN))
    accounts_only = replace(ACCOUNT_WATCH, subscribes_to=ACCOUNT_WATCH.subscribes_to[:1])
    retried = await SagaRun(store, accounts_only).engine.retry(ACCOUNT_WATCH.name, "a", "ada")
    assert (retried.status.blocked_reason, retried.other_streams["ledger.cheque.c"].version) == ("", 1)


async def test_too_many_streams_are_a_failed_input(run: SagaRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "MAX_OTHER_STREAMS", 2)
    await run.deliver(*(written(f"c-{number}") for number in range(5)))
    saga = (await run.read_sagas())["a"]
    assert "a follows 2 other streams already" in saga.blocked_reason
    assert list(saga.other_streams) == ["ledger.cheque.c-0", "ledger.cheque.c-1", "ledger.cheque.c-2"]
    await run.deliver(written("c-1", version=2))
    assert len(await read_received(run)) == 3
    parked = await run.query("SELECT stream, error FROM saga_parked_streams ORDER BY stream")
    assert [row.stream for row in parked] == ["ledger.cheque.c-3", "ledger.cheque.c-4"]
    monkeypatch.setattr(instance, "MAX_OTHER_STREAMS", 9)
    await run.engine.retry(ACCOUNT_WATCH.name, "a", "ada")
    await run.replay(CHEQUES)
    assert len(await read_received(run)) == 6
    assert await run.query("SELECT * FROM saga_parked_streams") == []


async def test_a_stream_whose_key_fails_is_parked_alone(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.deliver(written("c", account=BROKEN_KEY), written("c", version=2, account="a"), written("d"))
    assert await read_received(run) == [("ledger.cheque.d", 1)]
    await run.deliver(written("c", version=3, account="a"))
    await run.replay(CHEQUES)
    (parked,) = await run.query("SELECT stream, version, error FROM saga_parked_streams")
    assert tuple(parked) == ("ledger.cheque.c", 1, "RuntimeError: the key is broken")
    monkeypatch.setattr(account_watch, "BROKEN_KEY", "")
    await run.replay(CHEQUES)
    assert await read_received(run, BROKEN_KEY) == [("ledger.cheque.c", 1)]
    assert (await read_received(run))[1:] == [("ledger.cheque.c", 2), ("ledger.cheque.c", 3)]
    assert await run.query("SELECT * FROM saga_parked_streams") == []


async def test_two_feeds_that_begin_the_same_instances_lose_no_input(run: SagaRun) -> None:
    names = [f"a-{number}" for number in range(30)]
    accounts = [paid(name) for name in names]
    cheques = [written(f"c-{name}", account=name) for name in reversed(names)]
    await asyncio.gather(
        run.engine.deliver_events(ACCOUNTS, accounts, NO_CHECKPOINT, ("epoch", 1)),
        run.engine.deliver_events(CHEQUES, cheques, NO_CHECKPOINT, ("epoch", 1)),
    )
    for name in names:
        assert sorted(await read_received(run, name)) == [
            (f"ledger.account.{name}", 1),
            (f"ledger.cheque.c-{name}", 1),
        ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own, other: (own, replace(other, key=None)), "only one subscription"),
        (lambda own, other: (own, own), "each stream type once"),
        (lambda own, other: (), "at least one"),
        (
            lambda own, other: (replace(other, key={events_v2.ChequeWritten: "x"}),),
            "has no field x",
        ),
        (lambda own, other: (replace(other, key={Timestamp: "seconds"}),), "not an event of"),
    ],
)
def test_subscriptions_that_exclude_each_other_are_an_error(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ACCOUNT_WATCH, subscribes_to=change(*ACCOUNT_WATCH.subscribes_to))
