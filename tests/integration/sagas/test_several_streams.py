"""A saga of two streams on the real PostgreSQL: an account, and the cheques that name it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.envelope import RecordedEvent
from process_manager.groups import instance
from process_manager.postgres.due_work import NO_CHECKPOINT, Feed
from process_manager.postgres.store import SagaStore
from runtime.process.error_place import split_place
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
    (parked,) = await read_parked(run)
    assert parked == ("ledger.cheque.c", 1, "RuntimeError: the key is broken")
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


async def read_versions(run: SagaRun, id_: str, stream: str = "ledger.cheque.q") -> list[int]:
    return [version for name, version in await read_received(run, id_) if name == stream]


async def read_parked(run: SagaRun) -> list[tuple[Any, ...]]:
    """Return the parked streams with their versions and errors, without the errors' places."""
    rows = await run.query("SELECT stream, version, error FROM saga_parked_streams")
    return [(row.stream, row.version, split_place(row.error)[0]) for row in rows]


async def test_a_slice_behind_the_failed_event_leaves_the_instance_failed(run: SagaRun) -> None:
    broken = written("q", BROKEN, account="a1")
    await run.deliver(paid("a1"), paid("a2"))
    await run.deliver(broken)
    for version, account in [(2, "a2"), (3, "a1"), (4, "a2"), (5, "a1")]:
        await run.deliver(written("q", version=version, account=account))
    assert await read_versions(run, "a1") == []
    assert "version 1 of ledger.cheque.q failed" in (await run.read_sagas())["a1"].blocked_reason
    assert await read_versions(run, "a2") == [2, 4]
    assert await read_parked(run) == []
    repair(run, broken, written("q", account="a1"))
    await run.deliver(written("q", version=6, account="a1"))
    assert await read_versions(run, "a1") == [1, 3, 5, 6]
    assert (await run.read_sagas())["a1"].blocked_reason == ""


async def test_a_failed_event_behind_those_of_others_is_delivered_again(run: SagaRun) -> None:
    broken = written("q", BROKEN, version=8, account="a1")
    others = [written("q", version=version, account="a2") for version in range(1, 8)]
    await run.deliver(*others, broken)
    repair(run, broken, written("q", version=8, account="a1"))
    await run.deliver(written("q", version=9, account="a1"))
    assert (await read_versions(run, "a1"), await read_versions(run, "a2")) == ([8, 9], list(range(1, 8)))


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in batches of their own"])
async def test_a_stream_that_cannot_be_assigned_waits_from_an_earlier_failed_event_on(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    await run.deliver(paid("a1"))
    broken, wrong = written("q", BROKEN, account="a1"), written("q", version=2, account=BROKEN_KEY)
    for batch in [(broken, wrong)] if together else [(broken,), (wrong,)]:
        await run.deliver(*batch)
    version = 1 if together else 2  # no row at hand tells that an instance has failed before
    assert await read_parked(run) == [("ledger.cheque.q", version, "RuntimeError: the key is broken")]
    await run.deliver(written("q", version=3, account="a1"))
    await run.replay(CHEQUES)
    assert await read_versions(run, "a1") == []
    repair(run, broken, written("q", account="a1"))
    monkeypatch.setattr(account_watch, "BROKEN_KEY", "")
    await run.replay(CHEQUES)
    assert await read_versions(run, "a1") == [1, 3]
    assert (await read_parked(run), (await run.read_sagas())["a1"].blocked_reason) == ([], "")


async def test_a_retry_lowers_the_version_of_a_stream_that_another_manager_parks(run: SagaRun) -> None:
    broken = written("q", BROKEN, account="a1")
    await run.deliver(broken)
    await run.deliver(written("q", version=2, account=BROKEN_KEY))
    assert [row[1] for row in await read_parked(run)] == [2]
    repair(run, broken, written("q", account="a1"))
    retried = await run.engine.retry(ACCOUNT_WATCH.name, "a1", "ada")
    assert retried.status.blocked_reason == ""
    assert await read_versions(run, "a1") == [1]
    assert [row[1] for row in await read_parked(run)] == [2]


async def test_a_stream_waits_from_the_first_event_that_an_instance_cannot_record(
    run: SagaRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for account in ("a1", "a2"):
        await run.deliver(*(written(f"{account}-{number}", account=account) for number in range(3)))
    monkeypatch.setattr(instance, "MAX_OTHER_STREAMS", 1)
    events = [written("q", account="a2"), written("q", version=2, account="a1"), written("q", version=3)]
    await run.deliver(*events, written("q", version=4, account=BROKEN_KEY))
    assert [row[1] for row in await read_parked(run)] == [1]
    monkeypatch.setattr(instance, "MAX_OTHER_STREAMS", 9)
    await run.replay(CHEQUES)
    assert await read_versions(run, "a2") == [1]
    assert await read_versions(run, "a1") == [2]
    assert [row[1] for row in await read_parked(run)] == [4]


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
