"""Texts of payments are sealed with the key of the account's owner, and money moves on without it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from diptych.banking.v1 import events_pb2 as events
from msgspec import structs

from command_server.contexts import banking
from command_server.contexts.banking.domain.case_messages import AddListedName
from command_server.contexts.banking.domain.messages import ApproveTransfer, OpenAccount, RequestTransfer
from command_server.contexts.banking.domain.withdrawal_messages import ApproveWithdrawal, RequestWithdrawal
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted
from command_server.kernel.sealing import Sealing
from contracts.sealed_states import list_state_keys
from contracts.subject_keys import RingWrapper
from runtime.subject_keys import SubjectKeys
from tests.support.builders.bank import deposit, eur, hold, identify, refund, transfer, withdraw
from tests.support.builders.requests import request
from tests.support.harness.keys import get_ring
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.unit.commands.test_group_commit import execute

KINDS = {name.rpartition(".")[2]: kind for name, kind in command_types(banking.CONTEXT).items()}
AGGREGATES = aggregate_types((banking.CONTEXT,))
TEXT = "from Ada"
REQUEST = RequestTransfer("t-2", "a", "b", eur(20), TEXT)
WITHDRAWAL = RequestWithdrawal("w-1", "a", eur(20), TEXT)


@pytest.fixture
async def store() -> MemoryEventStore:
    """Return a store with an account of Ada's and one of Bob's."""
    store = MemoryEventStore()
    await run(
        store, *(OpenAccount(id_, owner, "EUR", None, None) for id_, owner in (("a", "ada"), ("b", "bob")))
    )
    await run(store, replace(refund("r-1", 900), reference=TEXT))
    return store


async def run(store: MemoryEventStore, *commands: Any, caller: str = "clerk") -> list[Any]:
    """Execute commands one after the other, by a command server that has just started."""
    store.opened, outcomes = SubjectKeys(RingWrapper(get_ring)), list[Any]()
    for each in commands:
        command = identify(each, caller)
        asked = request(command, kind=KINDS[type(each).__name__], caller=caller)
        commits = GroupCommit(store, AGGREGATES, sealing=Sealing(store.opened))
        outcomes += await execute(commits, [asked])
    return outcomes


async def pay(store: MemoryEventStore) -> None:
    """Execute all that records a text of a payment, of both accounts."""
    deadline = datetime.now(UTC) + timedelta(hours=1)
    made = [
        replace(deposit("a", 10), reference=TEXT),
        replace(withdraw("a", 10), reference=TEXT),
        replace(transfer("t-1", 10), reference=TEXT),
        replace(hold("h-1", 10, deadline=deadline), reference=TEXT),
        replace(refund("r-2", 10), reference=TEXT),
        REQUEST,
        WITHDRAWAL,
    ]
    outcomes = await run(store, *made)
    outcomes += await run(store, ApproveTransfer("t-2"), ApproveWithdrawal("w-1"), caller="boss")
    assert [each for each in outcomes if not isinstance(each, Accepted)] == []


def forget(store: MemoryEventStore, subject: str) -> None:
    store.subject_keys[subject] = structs.replace(store.subject_keys[subject], wrapped=None)


def list_sealed(store: MemoryEventStore) -> list[tuple[str, str]]:
    """Return the type and the owner of each sealed event."""
    found = []
    for row in store.events:
        kind = getattr(events, name := row.type.rpartition(".")[2])
        message = kind.FromString(row.data)
        if getattr(message, "sealed", b""):
            owners = [owner for owner, key in store.subject_keys.items() if key.id == message.sealed[1:17]]
            assert owners == [message.owner_id]
            found.append((name, message.owner_id))
    return found


async def test_each_text_is_sealed_for_the_owner_of_its_account(store: MemoryEventStore) -> None:
    await pay(store)
    assert not [row.type for row in store.events if TEXT.encode() in row.data]
    assert not [state for row in store.streams.values() if TEXT in (state := row.state or "")]
    assert set(list_sealed(store)) == {
        ("MoneyDeposited", "ada"),
        ("RefundPaid", "ada"),
        ("MoneyWithdrawn", "ada"),
        ("TransferMade", "ada"),
        ("TransferSent", "ada"),
        ("TransferReceived", "bob"),
        ("HoldPlaced", "ada"),
        ("TransferRequested", "ada"),
        ("WithdrawalRequested", "ada"),
    }


async def test_the_states_of_accounts_hold_no_text_and_are_in_clear(store: MemoryEventStore) -> None:
    await pay(store)
    sealed = {name.rpartition(".")[0] for name, row in store.streams.items() if list_state_keys(row.state)}
    assert sealed == {f"banking.{kind}" for kind in ("hold", "refund", "transfer", "withdrawal")}


async def test_the_name_in_a_case_is_sealed_for_the_owner_and_the_list_keeps_its_own(
    store: MemoryEventStore,
) -> None:
    await run(store, AddListedName(TEXT, "told by the police"))
    await run(store, replace(deposit("a", 10), counterparty_name=TEXT))
    assert ("CaseOpened", "ada") in list_sealed(store)
    assert [row.type for row in store.events if TEXT.encode() in row.data] == [
        events.ListedNameAdded.DESCRIPTOR.full_name
    ]


async def test_money_moves_on_without_texts_once_the_owner_was_forgotten(store: MemoryEventStore) -> None:
    forget(store, "ada")
    before = len(store.events)
    await pay(store)
    assert not [row.type for row in store.events if TEXT.encode() in row.data]
    new = MemoryEventStore()
    new.events, new.subject_keys = store.events[before:], store.subject_keys
    assert {owner for _, owner in list_sealed(new)} == {"bob"}


async def test_a_repetition_is_still_known_once_the_owner_was_forgotten(store: MemoryEventStore) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=1)
    made = [
        replace(refund("r-1", 900), reference=TEXT),
        transfer("t-1", 10),
        hold("h-1", 10, deadline=deadline),
        REQUEST,
        WITHDRAWAL,
    ]
    await run(store, *made)
    forget(store, "ada")
    before = len(store.events)
    again = await run(store, *made)
    assert [type(each) for each in again] == [Accepted] * len(made)
    assert len(store.events) == before
    (other,) = await run(store, replace(REQUEST, amount=eur(21)))
    assert other.reason == "TRANSFER_EXISTS"
