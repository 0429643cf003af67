"""Accounts and commands for tests of banking's rules. Amounts are in whole euros."""

from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

from command_server.contexts.banking import CONTEXT
from command_server.contexts.banking.domain.account import ACCOUNT, Account
from command_server.contexts.banking.domain.case import Case
from command_server.contexts.banking.domain.case import Status as CaseStatus
from command_server.contexts.banking.domain.case_messages import ClearCase
from command_server.contexts.banking.domain.messages import (
    Deposit,
    OpenAccount,
    PayRefund,
    PlaceHold,
    Transfer,
    Withdraw,
)
from command_server.contexts.banking.hidden_texts import normalize_text
from command_server.kernel.decider import InvalidValue, UniqueValue
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW
from diptych_testing.world import World

DEADLINE = NOW + timedelta(hours=1)


def eur(units: int, nanos: int = 0) -> Money:
    return Money("EUR", units, nanos)


def make_bank(**balances: int) -> World:
    """Return a world with one account per keyword, whose value is its balance in euros, not paid in cash."""
    world = World(*CONTEXT.deciders)
    for account_id, balance in balances.items():
        world.execute(OpenAccount(account_id, "ada", "EUR", None, None))
        if balance:
            world.execute(refund(f"opening-{account_id}", balance, account_id))
    return world


def deposit(account_id: str, units: int, caller: str = "ada", on_behalf_of: str = "") -> Deposit:
    command: Deposit = identify(Deposit(account_id, eur(units), "pay"), caller, on_behalf_of)
    return command


def withdraw(account_id: str, units: int, caller: str = "ada", on_behalf_of: str = "") -> Withdraw:
    command: Withdraw = identify(Withdraw(account_id, eur(units), "cash"), caller, on_behalf_of)
    return command


def transfer(
    id_: str,
    units: int,
    sender: str = "a",
    recipient: str = "b",
    caller: str = "ada",
    on_behalf_of: str = "",
) -> Transfer:
    command: Transfer = identify(Transfer(id_, sender, recipient, eur(units), "rent"), caller, on_behalf_of)
    return command


def identify(command: Any, caller: str, on_behalf_of: str = "") -> Any:
    """Return a command with what the server adds: who calls, and the ids of hidden values."""
    if hasattr(command, "caller"):
        command = replace(command, caller=caller)
    if hasattr(command, "persons"):
        command = replace(command, persons=frozenset(filter(None, (caller, on_behalf_of))))
    if hasattr(command, "request_id"):
        command = replace(command, request_id=str(uuid4()))
    if not hasattr(command, "unique_values"):
        return command
    return replace(command, unique_values={text: hide(text) for text in command.claimed_texts})


def clear_cases(world: World, caller: str = "officer") -> None:
    """Clear all open cases."""
    for name, state in list(world.states.items()):
        if isinstance(state, Case) and state.status is CaseStatus.OPEN:
            world.execute(identify(ClearCase(name.rpartition(".")[2], "all is well"), caller))


def hide(text: str) -> UniqueValue | InvalidValue:
    """Return a hidden value under a key of its own."""
    try:
        normalized = normalize_text(text)
    except ValueError as error:
        return InvalidValue(str(error))
    return UniqueValue(normalized, (sha256(normalized.encode()).hexdigest(),))


def hold(
    id_: str, units: int, account_id: str = "a", deadline: datetime = DEADLINE, customer_id: str = "ada"
) -> PlaceHold:
    return PlaceHold(id_, account_id, eur(units), deadline, "order o-1", customer_id)


def refund(id_: str, units: int, account_id: str = "a") -> PayRefund:
    return PayRefund(id_, account_id, eur(units), "refund of order o-1")


def get_account(world: World, account_id: str = "a") -> Account:
    account: Account = world.state(ACCOUNT.stream(account_id))
    return account


def get_levels(world: World, account_id: str = "a") -> tuple[int, int]:
    """Return the balance and the held amount in whole units."""
    account = get_account(world, account_id)
    return account.balance.units, account.held.units
