"""Group commit on the in-memory store: one effect per request id, batched decisions, isolated failures."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from command_server.kernel.admission import MAX_QUEUE_TIME
from command_server.kernel.batch import Request
from command_server.kernel.command_queue import MAX_BATCH_BYTES
from command_server.kernel.context import CommandType
from command_server.kernel.decider import RejectionKind
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import (
    Accepted,
    CommandResult,
    DeadlinePassed,
    Overloaded,
    Rejection,
    RequestIdReused,
)
from command_server.kernel.ports import StoreConflict, StoreFull, StoreUnavailable
from command_server.kernel.rerun_budget import CAPACITY, MAX_RERUN_TIME, RATIO
from contracts.envelope import MAX_EVENT_BYTES
from tests.support.builders.requests import KINDS, group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules import CONTEXT, cheque
from tests.support.ledger.rules.account import POISON
from tests.support.ledger.rules.cheque import CHEQUES
from tests.support.ledger.rules.messages import CashCheque, Deposit, Transfer, VoidCheque, WriteCheque
from tests.support.ledger.stubs import commands, commands_v2


async def execute(commits: GroupCommit, requests: Sequence[Request]) -> list[Any]:
    """Execute all requests in one batch and return their outcomes or errors."""
    pending = asyncio.gather(*map(commits.execute, requests), return_exceptions=True)
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    return [result.outcome if isinstance(result, CommandResult) else result for result in await pending]


async def test_each_batch_is_measured_before_its_commit() -> None:
    batches: list[tuple[int, float]] = []
    commits = group_commit(MemoryEventStore(), on_batch=lambda size, wait: batches.append((size, wait)))
    requests = [replace_arrival(request(Deposit(f"a-{number}", 1)), seconds=5.0) for number in range(3)]
    await execute(commits, requests)
    ((size, wait),) = batches
    assert size == 3
    assert 5.0 <= wait < 60
    assert commits.count_queued() == 0


def replace_arrival(command: Request, seconds: float) -> Request:
    return structs.replace(command, arrived_at=command.arrived_at - seconds)


def list_versions(store: MemoryEventStore) -> dict[str, int]:
    return {name: stream.version for name, stream in store.streams.items()}


class FailingStore(MemoryEventStore):
    """Raises the given errors, one per transaction: at its begin, or after its commit (`after_commit`)."""

    def __init__(self, errors: list[Exception], *, after_commit: bool = False) -> None:
        super().__init__()
        self.errors = errors
        self.after_commit = after_commit

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        if self.errors and not self.after_commit:
            raise self.errors.pop()
        async with super().begin() as transaction:
            yield transaction
        if self.errors:
            raise self.errors.pop()


async def test_commands_are_rejected_while_the_queue_is_too_slow() -> None:
    commits = group_commit(MemoryEventStore())
    first = request(Deposit("a", 1))
    first_task = asyncio.create_task(commits.execute(first))
    await asyncio.sleep(0)
    second_task = asyncio.create_task(
        commits.execute(
            structs.replace(request(Deposit("a", 2)), arrived_at=first.arrived_at + MAX_QUEUE_TIME)
        )
    )
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        late = structs.replace(request(Deposit("a", 4)), arrived_at=first.arrived_at + MAX_QUEUE_TIME + 0.1)
        await asyncio.wait_for(commits.execute(late), 5)
    writer = asyncio.create_task(commits.run())
    await asyncio.gather(first_task, second_task)
    assert isinstance((await commits.execute(request(Deposit("a", 8)))).outcome, Accepted)
    commits.close()
    await writer


async def test_a_batch_is_bounded_by_the_bytes_of_its_requests() -> None:
    sizes: list[int] = []

    class CountingStore(MemoryEventStore):
        @asynccontextmanager
        async def begin(self) -> AsyncIterator[Any]:
            before = len(self.requests)
            async with super().begin() as transaction:
                yield transaction
            sizes.append(len(self.requests) - before)

    large = [structs.replace(request(Deposit("a", 1)), size=MAX_BATCH_BYTES // 3 + 1) for _ in range(5)]
    small = [structs.replace(request(Deposit("a", 1)), size=10) for _ in range(4)]
    larger = structs.replace(request(Deposit("a", 1)), size=MAX_BATCH_BYTES * 2)
    outcomes = await execute(
        group_commit(CountingStore()), [*large, *small, larger, request(Deposit("a", 1))]
    )
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert sizes == [3, 2 + 4 + 1, 1]


async def test_a_command_whose_event_is_too_large_for_the_stream_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cheque, "check_fields", lambda _: None)  # which permit no reason that is so long
    store = MemoryEventStore()
    await execute(group_commit(store), [request(WriteCheque("c", "a", 5))])
    size = MAX_EVENT_BYTES - 100
    requests = [request(VoidCheque("c", "x" * MAX_EVENT_BYTES)), request(VoidCheque("c", "x" * size))]
    rejected, voided = await execute(group_commit(store), requests)
    assert (rejected.reason, rejected.kind) == ("EVENT_TOO_LARGE", RejectionKind.RULE)
    assert rejected.details["event"] == "acme.ledger.v1.ChequeVoided"
    assert int(rejected.details["bytes"]) > int(rejected.details["most"]) == MAX_EVENT_BYTES
    assert voided.versions == {"ledger.cheque.c": 2}


@pytest.mark.parametrize("actor", ["alice", "a" * 1_000], ids=["usual metadata", "large metadata"])
async def test_the_limit_of_the_nats_server_bounds_events_with_their_headers(
    actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cheque, "check_fields", lambda _: None)
    store, limit = MemoryEventStore(), 10_000
    limited = group_commit(store, max_payload=lambda: limit)
    await execute(limited, [request(WriteCheque("c", "a", 5)), request(WriteCheque("d", "a", 5))])
    texts = ["x" * (limit - 1_500 - len(actor)), "x" * (limit - len(actor))]
    requests = [request(VoidCheque(id_, text), caller=actor) for id_, text in zip("cd", texts, strict=True)]
    voided, rejected = await execute(group_commit(store, max_payload=lambda: limit), requests)
    assert voided.versions == {"ledger.cheque.c": 2}
    assert rejected.reason == "EVENT_TOO_LARGE"
    assert int(rejected.details["bytes"]) > int(rejected.details["most"])
    assert limit - 1_400 - len(actor) * 2 < int(rejected.details["most"]) < limit - len(actor)
    raised = group_commit(store, max_payload=lambda: 2 * limit)
    (again,) = await execute(raised, [request(VoidCheque("d", texts[1]), caller=actor)])
    assert again.versions == {"ledger.cheque.d": 2}


async def test_a_command_also_changes_the_streams_that_its_first_state_names() -> None:
    store = MemoryEventStore()
    await execute(group_commit(store), [request(Deposit("a", 9)), request(WriteCheque("c", "a", 5))])
    (cashed,) = await execute(group_commit(store), [request(CashCheque("c"))])
    assert cashed.versions == {"ledger.cheque.c": 2, "ledger.account.a": 2}
    assert store.streams["ledger.account.a"].state == '{"balance":4}'


async def test_a_command_whose_related_streams_are_not_loaded_joins_the_next_batch() -> None:
    store = MemoryEventStore()
    requests = [request(WriteCheque("c", "a", 5)), request(CashCheque("c")), request(CashCheque("c"))]
    written, cashed, repeated = await execute(group_commit(store), requests)
    assert (written.versions, cashed.versions) == (
        {"ledger.cheque.c": 1},
        {"ledger.cheque.c": 2, "ledger.account.a": 1},
    )
    assert repeated == Rejection("CHEQUE_WORTHLESS", RejectionKind.RULE, {"status": "CASHED"})


async def test_a_bug_in_related_streams_fails_its_own_command_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Sequence[str]:
        raise KeyError("broken")

    monkeypatch.setattr(KINDS["CashCheque"], "decider", replace(CHEQUES, related_streams=fail))
    requests = [request(CashCheque("c")), request(Deposit("a", 1))]
    failed, deposited = await execute(group_commit(MemoryEventStore()), requests)
    assert isinstance(failed, KeyError)
    assert deposited.versions == {"ledger.account.a": 1}


def test_a_command_with_a_caller_field_gets_the_caller() -> None:
    kind = KINDS["WriteCheque"]
    message = commands_v2.WriteChequeRequest(cheque_id="c", account_id="a", amount=5, currency_code="EUR")
    assert kind.decode(message, "ada") == WriteCheque("c", "a", 5, caller="ada")


@dataclass(frozen=True)
class VoidChequeOf:
    cheque_id: str
    reason: str
    persons: frozenset[str] = frozenset()


def test_a_command_with_persons_gets_the_caller_and_whom_it_acts_for() -> None:
    method = CONTEXT.services[0].methods_by_name["VoidCheque"]
    kind = CommandType(CONTEXT, method, CHEQUES, VoidChequeOf)
    message = commands.VoidChequeRequest(cheque_id="c")
    assert kind.decode(message, "shop").persons == {"shop"}
    assert kind.decode(message, "shop", persons=frozenset({"shop", "ada"})).persons == {"shop", "ada"}


async def test_commands_on_one_stream_build_on_each_other_in_one_batch() -> None:
    store = MemoryEventStore()
    outcomes = await execute(group_commit(store), [request(Deposit("a", n)) for n in (1, 2, 3)])
    assert [outcome.versions for outcome in outcomes] == [{"ledger.account.a": n} for n in (1, 2, 3)]
    assert store.streams["ledger.account.a"].state == '{"balance":6}'
    assert [event.version for event in store.events] == [1, 2, 3]


async def test_a_transfer_changes_both_streams() -> None:
    store = MemoryEventStore()
    _, outcome = await execute(
        group_commit(store), [request(Deposit("a", 5)), request(Transfer("a", "b", 4))]
    )
    assert outcome.versions == {"ledger.account.a": 2, "ledger.account.b": 1}
    assert store.streams["ledger.account.b"].state == '{"balance":4}'


async def test_a_rejected_command_changes_nothing_and_is_recorded() -> None:
    store = MemoryEventStore()
    (outcome,) = await execute(group_commit(store), [request(Transfer("a", "b", 4))])
    assert outcome == Rejection("LEDGER_TOO_POOR", RejectionKind.RULE, {"balance": "0"})
    assert (store.events, store.streams) == ([], {})
    assert [row.outcome for row in store.requests.values()] == [outcome]


@pytest.mark.parametrize("same_batch", [True, False])
async def test_a_repeated_request_has_one_effect_and_one_answer(same_batch: bool) -> None:
    store, repeated = MemoryEventStore(), request(Deposit("a", 5))
    if same_batch:
        first, second = await execute(group_commit(store), [repeated, repeated])
    else:
        (first,) = await execute(group_commit(store), [repeated])
        (second,) = await execute(group_commit(store), [repeated])
    assert first == second
    assert len(store.events) == 1


async def test_a_rejection_is_repeated_although_the_rule_would_now_accept() -> None:
    store, early = MemoryEventStore(), request(Transfer("a", "b", 4))
    first, _, second = await execute(group_commit(store), [early, request(Deposit("a", 5)), early])
    assert first == second == Rejection("LEDGER_TOO_POOR", RejectionKind.RULE, {"balance": "0"})


async def test_a_reused_request_id_is_an_error_and_not_executed() -> None:
    store, key = MemoryEventStore(), str(uuid4())
    _, error = await execute(
        group_commit(store),
        [request(Deposit("a", 1), request_id=key), request(Deposit("a", 2), request_id=key)],
    )
    assert isinstance(error, RequestIdReused)
    assert len(store.events) == 1


async def test_two_callers_may_choose_the_same_request_id() -> None:
    store, key = MemoryEventStore(), str(uuid4())
    requests = [request(Deposit("a", 1), request_id=key, caller=caller) for caller in ("alice", "bob")]
    outcomes = await execute(group_commit(store), requests)
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)


@pytest.mark.parametrize(("expected", "accepted"), [(0, False), (1, True), (2, False)])
async def test_an_expected_version_must_be_the_streams(expected: int, accepted: bool) -> None:
    store = MemoryEventStore()
    _, outcome = await execute(
        group_commit(store),
        [request(Deposit("a", 1)), request(Deposit("a", 2), expected_version=expected)],
    )
    assert isinstance(outcome, Accepted) == accepted
    if not accepted:
        details = {"expected_version": str(expected), "actual_version": "1"}
        assert outcome == Rejection("VERSION_MISMATCH", RejectionKind.VERSION, details)


async def test_a_bug_fails_its_own_command_only() -> None:
    store = MemoryEventStore()
    requests = [request(Deposit("a", 1)), request(Deposit("a", POISON)), request(Deposit("a", 2))]
    first, poisoned, last = await execute(group_commit(store), requests)
    assert isinstance(poisoned, RuntimeError)
    assert (first.versions, last.versions) == ({"ledger.account.a": 1}, {"ledger.account.a": 2})
    assert requests[1].key not in store.requests


async def test_a_command_past_its_deadline_is_not_executed() -> None:
    store = MemoryEventStore()
    (error,) = await execute(group_commit(store), [request(Deposit("a", 1), deadline=perf_counter() - 1)])
    assert isinstance(error, DeadlinePassed)
    assert store.events == []


async def test_a_queued_command_is_not_executed_after_its_caller_cancels() -> None:
    store = MemoryEventStore()
    commits = group_commit(store)
    call = asyncio.ensure_future(commits.execute(request(Deposit("a", 1))))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    assert store.events == []


@pytest.mark.parametrize("error", [StoreConflict, StoreUnavailable])
async def test_a_batch_reruns_on_fresh_reads(error: Callable[[str], Exception]) -> None:
    store = FailingStore([error("once"), error("twice")])
    (outcome,) = await execute(group_commit(store), [request(Deposit("a", 1))])
    assert outcome.versions == {"ledger.account.a": 1}


async def test_a_commit_whose_reply_is_lost_returns_the_recorded_outcome() -> None:
    store = FailingStore([StoreUnavailable("the reply was lost")], after_commit=True)
    (outcome,) = await execute(group_commit(store), [request(Deposit("a", 1))])
    assert outcome.versions == {"ledger.account.a": 1}
    assert len(store.events) == 1


async def test_a_store_that_stays_unavailable_fails_the_whole_batch() -> None:
    store = FailingStore([StoreUnavailable("unreachable") for _ in range(3)])
    errors = await execute(group_commit(store), [request(Deposit("a", 1)), request(Deposit("b", 1))])
    assert [type(error) for error in errors] == [StoreUnavailable, StoreUnavailable]


class CountingStore(FailingStore):
    """Counts the transactions; each takes `seconds` before it fails, or ends."""

    def __init__(self, errors: list[Exception], seconds: float = 0.0) -> None:
        super().__init__(errors)
        self.transactions, self.seconds = 0, seconds

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        self.transactions += 1
        await asyncio.sleep(self.seconds)
        async with super().begin() as transaction:
            yield transaction


async def test_a_slow_store_is_not_asked_again_for_the_same_batch() -> None:
    store = CountingStore([StoreUnavailable("too slow")], seconds=MAX_RERUN_TIME)
    (error,) = await execute(group_commit(store), [request(Deposit("a", 1))])
    assert isinstance(error, StoreUnavailable)
    assert (store.transactions, error.retry_after >= MAX_RERUN_TIME) == (1, True)


async def test_a_full_store_is_not_asked_again() -> None:
    store = CountingStore([StoreFull("no space") for _ in range(3)])
    errors = await execute(group_commit(store), [request(Deposit("a", 1)), request(Deposit("b", 1))])
    assert [type(error) for error in errors] == [StoreFull, StoreFull]
    assert store.transactions == 1


async def test_an_absent_store_is_asked_about_once_for_each_batch() -> None:
    batches = 100
    store = CountingStore([StoreUnavailable("gone") for _ in range(10 * batches)])
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    for number in range(batches):
        with pytest.raises(StoreUnavailable):
            await commits.execute(request(Deposit(f"a-{number}", 1)))
    writer.cancel()
    assert store.transactions <= batches * (1 + RATIO) + CAPACITY


async def test_the_relay_is_notified_only_of_commits_with_events() -> None:
    notifications: list[None] = []
    store = MemoryEventStore()
    await execute(
        group_commit(store, on_commit=lambda: notifications.append(None)), [request(Transfer("a", "b", 4))]
    )
    assert len(notifications) == 0
    await execute(
        group_commit(store, on_commit=lambda: notifications.append(None)), [request(Deposit("a", 4))]
    )
    assert len(notifications) == 1


async def test_a_snapshot_of_other_code_is_folded_again() -> None:
    store = MemoryEventStore()
    await execute(group_commit(store), [request(Deposit("a", 5))])
    stored = store.streams["ledger.account.a"]
    wrong = type(stored)(stored.version, stored.updated_at, '{"balance":9999}', stored.version, "other code")
    store.streams["ledger.account.a"] = wrong
    (outcome,) = await execute(group_commit(store), [request(Transfer("a", "b", 6))])
    assert outcome == Rejection("LEDGER_TOO_POOR", RejectionKind.RULE, {"balance": "5"})


async def test_a_snapshot_that_lags_is_completed_from_later_events() -> None:
    store = MemoryEventStore()
    await execute(group_commit(store), [request(Deposit("a", n)) for n in (5, 7)])
    stored = store.streams["ledger.account.a"]
    lagging = type(stored)(2, stored.updated_at, '{"balance":5}', 1, stored.fingerprint)
    store.streams["ledger.account.a"] = lagging
    (outcome,) = await execute(group_commit(store), [request(Transfer("a", "b", 12))])
    assert isinstance(outcome, Accepted)


async def test_an_unreadable_snapshot_is_folded_again() -> None:
    store = MemoryEventStore()
    await execute(group_commit(store), [request(Deposit("a", 5))])
    stored = store.streams["ledger.account.a"]
    broken = type(stored)(stored.version, stored.updated_at, '{"bal', stored.version, stored.fingerprint)
    store.streams["ledger.account.a"] = broken
    (outcome,) = await execute(group_commit(store), [request(Transfer("a", "b", 6))])
    assert outcome == Rejection("LEDGER_TOO_POOR", RejectionKind.RULE, {"balance": "5"})
