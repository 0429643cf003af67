"""Banking as tests ask for it."""

from datetime import datetime, timedelta

from command_server.contexts.banking import CONTEXT
from command_server.contexts.banking.domain.account import ACCOUNT, Account
from command_server.contexts.banking.domain.messages import (
    Deposit,
    OpenAccount,
    PlaceHold,
    Transfer,
    Withdraw,
)
from command_server.kernel.money import Money
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World

DEADLINE = NOW + timedelta(hours=1)


def eur(units: int, nanos: int = 0) -> Money:
    return Money("EUR", units, nanos)


def bank(**balances: int) -> World:
    """Return a world with accounts in euros, each with so much in it."""
    made = World(*CONTEXT.deciders)
    for account_id, balance in balances.items():
        made.do(OpenAccount(account_id, "ada", "EUR", None, None))
        if balance:
            made.do(deposit(account_id, balance))
    return made


def deposit(account_id: str, units: int) -> Deposit:
    return Deposit(account_id, eur(units), "pay")


def withdraw(account_id: str, units: int) -> Withdraw:
    return Withdraw(account_id, eur(units), "cash")


def transfer(id_: str, units: int, giver: str = "a", taker: str = "b") -> Transfer:
    return Transfer(id_, giver, taker, eur(units), "rent")


def hold(id_: str, units: int, account_id: str = "a", deadline: datetime = DEADLINE) -> PlaceHold:
    return PlaceHold(id_, account_id, eur(units), deadline, "order o-1")


def account(made: World, account_id: str = "a") -> Account:
    found: Account = made.state(ACCOUNT.stream(account_id))
    return found


def levels(made: World, account_id: str = "a") -> tuple[int, int]:
    """Return the balance and what of it is held, in whole units."""
    found = account(made, account_id)
    return found.balance.units, found.held.units
