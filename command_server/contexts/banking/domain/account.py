"""An account as rules see it: what is in it, what of that is held, what may leave it and what may come in.

Its state does not grow with what is held: what holds how much, each hold knows itself.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from command_server.contexts.banking.domain.messages import (
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    HeldMoneyCaptured,
    HeldMoneyReleased,
    MoneyDeposited,
    MoneyHeld,
    MoneyWithdrawn,
    TransferReceived,
    TransferSent,
)
from command_server.kernel.decider import Aggregate, NotFound, Rejected, members
from command_server.kernel.money import Money

LARGEST = 10**13
"""Whole units that may be in an account, so that sums over many accounts fit 64 bits."""

Event = (
    AccountOpened
    | MoneyDeposited
    | MoneyWithdrawn
    | TransferSent
    | TransferReceived
    | MoneyHeld
    | HeldMoneyReleased
    | HeldMoneyCaptured
    | AccountFrozen
    | AccountUnfrozen
    | AccountClosed
)
NOTHING = Money("", 0)


class Status(Enum):
    """Where an account is in its life."""

    NONE = "NONE"
    OPEN = "OPEN"
    CLOSED = "CLOSED"


class Frozen(Enum):
    """What a frozen account does not do."""

    NOT = "NOT"
    GIVES_NOTHING = "GIVES_NOTHING"
    TAKES_NOTHING_EITHER = "TAKES_NOTHING_EITHER"


@dataclass(frozen=True, slots=True)
class Account:
    """An account as its rules see it."""

    account_id: str = ""
    owner_id: str = ""
    status: Status = Status.NONE
    frozen: Frozen = Frozen.NOT
    balance: Money = NOTHING
    held: Money = NOTHING
    overdraft_limit: Money = NOTHING
    daily_limit: Money | None = None
    left_on: str = ""
    """The day, by UTC, on which money left last."""
    left: Money = NOTHING
    """How much left on that day, against the daily limit."""

    @property
    def currency_code(self) -> str:
        """The account's currency."""
        return self.balance.currency_code

    @property
    def available(self) -> Money:
        """What may leave or be held: the balance less what is held, and the overdraft."""
        return self.balance - self.held + self.overdraft_limit

    def left_by(self, now: datetime) -> Money:
        """Return how much has left on the day of a time."""
        return self.left if self.left_on == _day(now) else Money(self.currency_code, 0)


def check_usable(account: Account, account_id: str) -> None:
    """Refuse what is not open."""
    if account.status is Status.NONE:
        raise NotFound("ACCOUNT_NOT_FOUND", account_id=account_id)
    if account.status is Status.CLOSED:
        raise Rejected("ACCOUNT_CLOSED", account_id=account_id)


def check_currency(account: Account, amount: Money) -> None:
    """Refuse another currency than the account's."""
    if amount.currency_code != account.currency_code:
        raise Rejected("CURRENCY_MISMATCH", account=account.currency_code, asked=amount.currency_code)


def check_gives(account: Account, account_id: str, amount: Money) -> None:
    """Refuse to let an account give, or hold, more than it has."""
    check_usable(account, account_id)
    check_currency(account, amount)
    if account.frozen is not Frozen.NOT:
        raise Rejected("ACCOUNT_FROZEN", account_id=account_id)
    if account.available < amount:
        raise Rejected("FUNDS_INSUFFICIENT", available=_text(account.available), requested=_text(amount))


def check_day(account: Account, amount: Money, now: datetime) -> None:
    """Refuse to let more leave on a day than the account's limit."""
    limit, left = account.daily_limit, account.left_by(now)
    if limit is not None and limit < left + amount:
        raise Rejected("DAILY_LIMIT_EXCEEDED", limit=_text(limit), left=_text(left), requested=_text(amount))


def check_takes(account: Account, account_id: str, amount: Money) -> None:
    """Refuse to let an account take what it may not."""
    check_usable(account, account_id)
    check_currency(account, amount)
    if account.frozen is Frozen.TAKES_NOTHING_EITHER:
        raise Rejected("ACCOUNT_FROZEN", account_id=account_id)
    if (account.balance + amount).units >= LARGEST:
        raise Rejected("BALANCE_TOO_LARGE", below=LARGEST)


def evolve(account: Account, event: Event) -> Account:
    """Return the account after an event."""
    match event:
        case AccountOpened():
            nothing = Money(event.currency_code, 0)
            return Account(
                event.account_id,
                event.owner_id,
                Status.OPEN,
                balance=nothing,
                held=nothing,
                overdraft_limit=event.overdraft_limit,
                daily_limit=event.daily_withdrawal_limit,
                left=nothing,
            )
        case MoneyWithdrawn(withdrawn_at=at) | TransferSent(sent_at=at):
            left = account.left_by(at) + event.amount
            return replace(account, balance=event.balance, held=event.held, left_on=_day(at), left=left)
        case AccountFrozen():
            incoming = event.incoming_too
            return replace(account, frozen=Frozen.TAKES_NOTHING_EITHER if incoming else Frozen.GIVES_NOTHING)
        case AccountUnfrozen():
            return replace(account, frozen=Frozen.NOT)
        case AccountClosed():
            return replace(account, status=Status.CLOSED)
        case _:
            return replace(account, balance=event.balance, held=event.held)


ACCOUNT = Aggregate("banking.account", Account(), evolve, members(Event))


def _day(time: datetime) -> str:
    return time.date().isoformat()


def _text(amount: Money) -> str:
    fraction = f"{abs(amount.nanos):09d}".rstrip("0").ljust(2, "0")
    sign = "-" if amount.units < 0 or amount.nanos < 0 else ""
    return f"{sign}{abs(amount.units)}.{fraction} {amount.currency_code}"
