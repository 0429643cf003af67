"""A rejection may record events: what the attempt itself has caused. A retry causes nothing more."""

import asyncio
import json
from dataclasses import replace
from typing import Any

from command_server.contexts import banking
from command_server.contexts.banking.domain.case_messages import AddListedName
from command_server.contexts.banking.domain.messages import OpenAccount, Withdraw
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import CommandResult, Rejection
from tests.support.builders.bank import eur, identify, refund
from tests.support.builders.requests import request
from tests.support.harness.memory_event_store import MemoryEventStore

KINDS = {name.rpartition(".")[2]: kind for name, kind in command_types(banking.CONTEXT).items()}
ACCOUNT = "banking.account.a"
PAYMENT = identify(Withdraw("a", eur(1), "cash", counterparty_name="Mallory"), "ada")


async def execute(store: MemoryEventStore, *requests: Any) -> list[CommandResult]:
    commits = GroupCommit(store, aggregate_types((banking.CONTEXT,)))
    async with asyncio.TaskGroup() as group:
        writer = group.create_task(commits.run())
        results = [await commits.execute(each) for each in requests]
        commits.close()
        await writer
    return results


def build(command: Any, **options: Any) -> Any:
    return request(command, kind=KINDS[type(command).__name__], **options)


async def make_bank() -> MemoryEventStore:
    store = MemoryEventStore()
    opening = (
        OpenAccount("a", "ada", "EUR", None, None),
        refund("r-1", 9),
        identify(AddListedName("Mallory", "sanctions"), "officer"),
    )
    await execute(store, *map(build, opening))
    return store


async def test_a_rejected_payment_freezes_the_account_once() -> None:
    store = await make_bank()
    count = len(store.events)
    attempt = build(PAYMENT, request_id=PAYMENT.request_id)
    rejection, repeated = [result.outcome for result in await execute(store, attempt, attempt)]
    assert rejection == repeated
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "ACCOUNT_FROZEN"
    names = [(event.stream, event.type.rpartition(".")[2]) for event in store.events[count:]]
    case = next(name for name, _ in names if name != ACCOUNT)
    assert sorted(names) == [(ACCOUNT, "AccountBlocked"), (case, "CaseOpened")]
    for event in store.events[count:]:
        assert json.loads(event.metadata)["rejected"] == "ACCOUNT_FROZEN"


async def test_a_later_command_of_the_batch_sees_what_the_rejection_recorded() -> None:
    store = await make_bank()
    later = identify(replace(PAYMENT, counterparty_name=""), "ada")
    count = len(store.events)
    results = await execute(store, build(PAYMENT), build(later))
    assert [result.outcome.reason for result in results] == ["ACCOUNT_FROZEN"] * 2  # type: ignore[union-attr]
    assert len(store.events) == count + 2


async def test_who_reaches_own_objects_alone_records_nothing_about_those_of_others() -> None:
    store = await make_bank()
    count = len(store.events)
    (result,) = await execute(store, build(PAYMENT, owners=frozenset({"eve"})))
    assert result.outcome.reason == "ACCOUNT_NOT_FOUND"  # type: ignore[union-attr]
    assert len(store.events) == count
