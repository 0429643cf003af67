"""Commands of callers who reach their own objects alone: those of others are as if they did not exist."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from diptych.ordering.v1 import command_service_pb2 as ordering

from command_server.contexts.ordering import CONTEXT as ORDERING
from command_server.contexts.ordering.domain.messages import CancelOrder
from command_server.kernel.batch import Request
from command_server.kernel.context import AggregateType
from command_server.kernel.decider import Aggregate, Rejected, RejectionKind
from command_server.kernel.outcomes import Accepted, CommandResult, Rejection
from command_server.service import command_services
from runtime.grpc.caller import Caller, set_current
from runtime.process.start_error import StartError
from tests.support.builders.requests import KINDS, group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules import CONTEXT
from tests.support.ledger.rules.account import ACCOUNT, ACCOUNTS
from tests.support.ledger.rules.cheque import CHEQUES
from tests.support.ledger.rules.messages import (
    CashCheque,
    ChequeVoided,
    Deposit,
    EndorseCheque,
    Transfer,
    VoidCheque,
    WriteCheque,
)

ADA, BOB = frozenset({"ada"}), frozenset({"bob"})
"""Cheques of the ledger belong to their account."""


async def execute(store: MemoryEventStore, *requests: Request) -> list[Any]:
    """Return the outcomes of requests that share a batch."""
    commits = group_commit(store)
    pending = asyncio.gather(*map(commits.execute, requests), return_exceptions=True)
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    return [result.outcome if isinstance(result, CommandResult) else result for result in await pending]


@pytest.fixture
async def store() -> MemoryEventStore:
    """A store with the cheque c-1 of ada, of two events, and money in the accounts of ada and bob."""
    store = MemoryEventStore()
    commands = (WriteCheque("c-1", "ada", 5), EndorseCheque("c-1"), Deposit("ada", 9), Deposit("bob", 9))
    outcomes = await execute(store, *map(request, commands))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    return store


def name_of(outcome: Any, cheque_id: str) -> str:
    """Return an outcome as text, without the id that the command named, and without its time."""
    shown = outcome.versions if isinstance(outcome, Accepted) else outcome
    return repr(shown).replace(cheque_id, "ID")


@pytest.mark.parametrize("version", [None, 0, 1, 2, 3])
@pytest.mark.parametrize(
    "build", [EndorseCheque, CashCheque, lambda id_: VoidCheque(id_, "lost")], ids=["endorse", "cash", "void"]
)
async def test_the_object_of_another_is_answered_as_a_missing_one(
    store: MemoryEventStore, build: Callable[[str], Any], version: int | None
) -> None:
    before = len(store.events)
    foreign, missing = await execute(
        store, *(request(build(id_), owners=BOB, expected_version=version) for id_ in ("c-1", "c-9"))
    )
    assert name_of(foreign, "c-1") == name_of(missing, "c-9")
    assert isinstance(foreign, Rejection)
    assert len(store.events) == before


async def test_owners_and_callers_who_reach_all_change_the_object(store: MemoryEventStore) -> None:
    for owners in (ADA, ADA | BOB, None):
        (outcome,) = await execute(store, request(EndorseCheque("c-1"), owners=owners))
        assert isinstance(outcome, Accepted)
    assert store.streams["ledger.cheque.c-1"].version == 5


async def test_the_object_of_another_is_hidden_in_the_batch_that_made_it(store: MemoryEventStore) -> None:
    written, own, foreign = await execute(
        store,
        request(WriteCheque("c-2", "ada", 5)),
        request(EndorseCheque("c-2"), owners=ADA),
        request(EndorseCheque("c-2"), owners=BOB),
    )
    assert isinstance(written, Accepted)
    assert isinstance(own, Accepted)
    assert foreign.reason == "CHEQUE_NOT_FOUND"


async def test_a_decision_that_would_begin_the_stream_of_another_anew_is_refused(
    store: MemoryEventStore,
) -> None:
    foreign, own = await execute(
        store,
        request(WriteCheque("c-1", "bob", 5), owners=BOB),
        request(WriteCheque("c-1", "ada", 5), owners=ADA),
    )
    assert (foreign.reason, foreign.kind) == ("OBJECT_NOT_FOUND", RejectionKind.NOT_FOUND)
    assert own.reason == "CHEQUE_ALREADY_WRITTEN"
    (new,) = await execute(store, request(WriteCheque("c-3", "bob", 5), owners=BOB))
    assert isinstance(new, Accepted)


async def test_a_stream_whose_type_has_no_owner_belongs_to_nobody(store: MemoryEventStore) -> None:
    (outcome,) = await execute(store, request(Deposit("ada", 1), owners=ADA))
    assert outcome.reason == "OBJECT_NOT_FOUND"


@pytest.mark.parametrize(
    ("owned", "reason"),
    [
        (lambda command: [ACCOUNT.stream(command.payee_id)], "OBJECT_NOT_FOUND"),
        (lambda _: ["ledger.account.elsewhere"], "OBJECT_NOT_FOUND"),
        (lambda _: [], None),
    ],
    ids=["second stream", "a stream that the command does not load", "none"],
)
async def test_a_decider_names_the_streams_that_must_be_the_callers(
    store: MemoryEventStore,
    monkeypatch: pytest.MonkeyPatch,
    owned: Callable[[Any], Sequence[str]],
    reason: str | None,
) -> None:
    monkeypatch.setattr(KINDS["Transfer"], "decider", replace(ACCOUNTS, owned_streams=owned))
    (outcome,) = await execute(store, request(Transfer("ada", "bob", 1), owners=ADA))
    assert getattr(outcome, "reason", None) == reason


@dataclass(frozen=True)
class EndorseAfterLooking:
    cheque_id: str
    earlier_events: Any = "found"


async def test_what_a_lookup_found_is_hidden_with_the_stream(
    store: MemoryEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def decide(command: Any, *_: Any) -> dict[str, Any]:
        seen.append(command.earlier_events)
        return {}

    lookup: Any = object()
    monkeypatch.setattr(KINDS["EndorseCheque"], "decider", replace(CHEQUES, decide=decide, lookup=lookup))
    for owners in (ADA, BOB):
        command = EndorseAfterLooking("c-1")
        await execute(store, request(command, kind=KINDS["EndorseCheque"], owners=owners))
    assert seen == ["found", None]


async def test_a_rejection_records_nothing_about_the_object_of_another(
    store: MemoryEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(command: Any, states: Any, now: Any) -> Any:
        (stream,) = states
        raise Rejected("CHEQUE_ODD").recording({stream: [ChequeVoided(command.cheque_id, "odd", now)]})

    monkeypatch.setattr(KINDS["EndorseCheque"], "decider", replace(CHEQUES, decide=decide))
    before = len(store.events)
    foreign, own = await execute(
        store, *(request(EndorseCheque("c-1"), owners=owners) for owners in (BOB, ADA))
    )
    assert (foreign.reason, own.reason) == ("OBJECT_NOT_FOUND", "CHEQUE_ODD")
    assert len(store.events) == before + 1


def test_an_aggregate_whose_state_lacks_its_owner_prevents_the_start() -> None:
    with pytest.raises(TypeError, match=r"a\.b: its state has no attribute writer"):
        AggregateType(Aggregate("a.b", 0, lambda state, _: state, (), owner="writer"), CONTEXT)


# The edge


class Kept(Exception):
    """Ends the execution of a request."""


async def receive(message: Any, who: Caller) -> Request:
    """Return the request that the kernel gets from a call of CancelOrder or PlaceOrder."""
    received: list[Request] = []

    async def keep(request: Request) -> CommandResult:
        received.append(request)
        raise Kept

    nothing: Any = None
    service, _ = command_services(ORDERING, keep, nothing, nothing)
    set_current(who)
    call: Any = SimpleNamespace(time_remaining=lambda: None)
    with pytest.raises(Kept):
        await service.handlers[type(message).__name__.removesuffix("Request")](message, call)
    assert "CancelOrder" in service.compares_owners
    return received[0]


CANCEL = ordering.CancelOrderRequest(request_id=str(uuid4()), order_id="o-1", reason="enough")


@pytest.mark.parametrize(
    ("scopes", "owners"),
    [
        ({"ordering.place", "ordering.own"}, {"shop", "ada"}),
        ({"ordering.place", "ordering.all"}, None),
        ({"ordering.place", "ordering.own", "ordering.all"}, None),
    ],
)
async def test_the_kernel_gets_the_persons_whose_objects_a_caller_reaches(
    scopes: set[str], owners: set[str] | None
) -> None:
    request = await receive(CANCEL, Caller("shop", frozenset(scopes), "ada"))
    assert request.owners == owners
    assert request.command == CancelOrder("o-1", "enough")


async def test_an_owner_in_the_request_needs_no_second_look() -> None:
    message = ordering.PlaceOrderRequest(request_id=str(uuid4()), order_id="o-1", customer_id="ada")
    request = await receive(message, Caller("ada", frozenset({"ordering.place", "ordering.own"})))
    assert request.owners is None


async def test_an_answer_for_one_person_is_none_for_another_under_the_same_request_id() -> None:
    callers = [Caller("shop", frozenset(), person) for person in (None, "ada", "bob", "ada")]
    alone, ada, bob, again = [(await receive(CANCEL, who)).digest for who in callers]
    assert len({alone, ada, bob}) == 3
    assert ada == again
    content = ordering.CancelOrderRequest(order_id="o-1", reason="enough").SerializeToString()
    assert alone == sha256(content).digest(), "answers that were recorded before must be found"


def test_an_owner_that_no_aggregate_has_prevents_the_start() -> None:
    deciders = tuple(
        replace(decider, aggregates=tuple(replace(each, owner="") for each in decider.aggregates))
        for decider in ORDERING.deciders
    )
    nothing: Any = None
    with pytest.raises(StartError, match=r"AddOrderLine: no aggregate .* has the owner customer_id"):
        command_services(replace(ORDERING, deciders=deciders), nothing, nothing, nothing)
