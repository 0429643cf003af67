"""The account aggregate: its balance, the held part of it, its limits, and the checks of every payment.

The state contains only the sum of all holds, so its size does not grow with their number. The single amounts
are in the hold aggregates.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from command_server.contexts.banking.domain.messages import (
    AccountBlocked,
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnblocked,
    AccountUnfrozen,
    CaseKind,
    HeldMoneyCaptured,
    HeldMoneyReleased,
    MoneyDeposited,
    MoneyHeld,
    MoneyWithdrawn,
    OverdraftChanged,
    TransferReceived,
    TransferSent,
)
from command_server.contexts.banking.domain.payment_window import Window, add_payment
from command_server.kernel.decider import Aggregate, NotFound, Rejected, members
from command_server.kernel.money import Money

BALANCE_LIMIT = 10**13
"""Exclusive upper bound of a balance, in whole units, so that sums over many accounts fit 64 bits."""
LARGE_CASH = 10_000
"""Whole units from which a deposit or a withdrawal opens a case."""

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
    | AccountBlocked
    | AccountUnblocked
    | OverdraftChanged
    | AccountClosed
)
NO_MONEY = Money("", 0)
"""The amounts of a state without an account, which has no currency."""


class Status(Enum):
    """Statuses of an account; NONE before it is opened."""

    NONE = "NONE"
    OPEN = "OPEN"
    CLOSED = "CLOSED"


class Freeze(Enum):
    """The payments that a freeze blocks."""

    NONE = "NONE"
    OUTGOING_BLOCKED = "OUTGOING_BLOCKED"
    ALL_BLOCKED = "ALL_BLOCKED"

    @classmethod
    def of(cls, *, incoming_too: bool) -> "Freeze":
        return cls.ALL_BLOCKED if incoming_too else cls.OUTGOING_BLOCKED


@dataclass(frozen=True, slots=True)
class Account:
    """The state of an account, as far as the rules need it."""

    account_id: str = ""
    owner_id: str = ""
    status: Status = Status.NONE
    freeze: Freeze = Freeze.NONE
    balance: Money = NO_MONEY
    held: Money = NO_MONEY
    overdraft_limit: Money = NO_MONEY
    daily_limit: Money | None = None
    withdrawn_on: str = ""
    """The UTC day of the last withdrawal or sent transfer, as `2026-11-23`."""
    withdrawn: Money = NO_MONEY
    """The sum of withdrawals and sent transfers on that day."""
    paid_alone: Window = ()
    """The withdrawals and sent transfers that nobody approved."""
    cash_in: Window = ()
    """Deposits below LARGE_CASH since the last case about such payments."""
    cash_out: Window = ()
    """Withdrawals below LARGE_CASH since then."""
    cases: int = 0
    """The cases that keep it frozen."""

    @property
    def currency_code(self) -> str:
        return self.balance.currency_code

    @property
    def available(self) -> Money:
        """The amount that can be paid out or held: balance minus held money plus overdraft limit."""
        return self.balance - self.held + self.overdraft_limit

    def get_withdrawn(self, now: datetime) -> Money:
        """Return the sum of withdrawals and sent transfers on the UTC day of `now`."""
        return self.withdrawn if self.withdrawn_on == _format_day(now) else Money(self.currency_code, 0)


def check_open(account: Account, account_id: str) -> None:
    """Raise NotFound or Rejected if the account does not exist or is closed. A frozen account is open."""
    if account.status is Status.NONE:
        raise NotFound("ACCOUNT_NOT_FOUND", account_id=account_id)
    if account.status is Status.CLOSED:
        raise Rejected("ACCOUNT_CLOSED", account_id=account_id)


def check_currency(account: Account, amount: Money) -> None:
    """Raise Rejected if the amount is not in the account's currency."""
    if amount.currency_code != account.currency_code:
        raise Rejected("CURRENCY_MISMATCH", account=account.currency_code, asked=amount.currency_code)


def check_can_pay(account: Account, account_id: str, amount: Money) -> None:
    """Raise Rejected if the account cannot pay out or hold this amount. It ignores the daily limit."""
    check_open(account, account_id)
    check_currency(account, amount)
    if account.freeze is not Freeze.NONE or account.cases:
        raise Rejected("ACCOUNT_FROZEN", account_id=account_id)
    if account.available < amount:
        raise Rejected(
            "FUNDS_INSUFFICIENT", available=_format_money(account.available), requested=_format_money(amount)
        )


def check_daily_limit(account: Account, amount: Money, now: datetime) -> None:
    """Raise Rejected if the amount exceeds the rest of the daily limit."""
    limit, withdrawn = account.daily_limit, account.get_withdrawn(now)
    if limit is not None and limit < withdrawn + amount:
        raise Rejected(
            "DAILY_LIMIT_EXCEEDED",
            limit=_format_money(limit),
            left=_format_money(withdrawn),
            requested=_format_money(amount),
        )


def check_can_receive(account: Account, account_id: str, amount: Money) -> None:
    """Raise Rejected if the account cannot receive this amount."""
    check_open(account, account_id)
    check_currency(account, amount)
    if account.freeze is Freeze.ALL_BLOCKED:
        raise Rejected("ACCOUNT_FROZEN", account_id=account_id)
    if (account.balance + amount).units >= BALANCE_LIMIT:
        raise Rejected("BALANCE_TOO_LARGE", below=BALANCE_LIMIT)


def evolve(account: Account, event: Event) -> Account:
    match event:
        case AccountOpened():
            zero = Money(event.currency_code, 0)
            return Account(
                event.account_id,
                event.owner_id,
                Status.OPEN,
                balance=zero,
                held=zero,
                overdraft_limit=event.overdraft_limit,
                daily_limit=event.daily_withdrawal_limit,
                withdrawn=zero,
            )
        case MoneyWithdrawn(withdrawn_at=at) | TransferSent(sent_at=at):
            withdrawn = account.get_withdrawn(at) + event.amount
            account = replace(account, withdrawn_on=_format_day(at), withdrawn=withdrawn)
            if not is_approved(event):
                account = replace(account, paid_alone=add_payment(account.paid_alone, event.amount, at))
            if isinstance(event, MoneyWithdrawn) and is_small(event.amount):
                account = replace(account, cash_out=add_payment(account.cash_out, event.amount, at))
            return replace(account, balance=event.balance, held=event.held)
        case MoneyDeposited(deposited_at=at) if not event.refund_id and is_small(event.amount):
            cash_in = add_payment(account.cash_in, event.amount, at)
            return replace(account, balance=event.balance, held=event.held, cash_in=cash_in)
        case AccountFrozen():
            return replace(account, freeze=Freeze.of(incoming_too=event.incoming_too))
        case AccountUnfrozen():
            return replace(account, freeze=Freeze.NONE)
        case AccountBlocked():
            account = replace(account, cases=account.cases + 1)
            was_found = event.kind is CaseKind.STRUCTURING
            return replace(account, cash_in=(), cash_out=()) if was_found else account
        case AccountUnblocked():
            return replace(account, cases=account.cases - 1)
        case OverdraftChanged():
            return replace(account, overdraft_limit=event.overdraft_limit)
        case AccountClosed():
            return replace(account, status=Status.CLOSED)
        case _:
            return replace(account, balance=event.balance, held=event.held)


def is_small(amount: Money) -> bool:
    """Return whether a deposit or withdrawal opens no case by itself."""
    return amount < Money(amount.currency_code, LARGE_CASH)


def is_approved(event: MoneyWithdrawn | TransferSent) -> bool:
    """Return whether a second person has approved a payment."""
    return event.approved if isinstance(event, TransferSent) else bool(event.withdrawal_id)


ACCOUNT = Aggregate(
    "banking.account",
    Account(),
    evolve,
    members(Event),
    subjects=lambda *_: (),  # the state has no reference
    owner="owner_id",
)


def _format_day(time: datetime) -> str:
    return time.date().isoformat()


def _format_money(amount: Money) -> str:
    fraction = f"{abs(amount.nanos):09d}".rstrip("0").ljust(2, "0")
    sign = "-" if amount.units < 0 or amount.nanos < 0 else ""
    return f"{sign}{abs(amount.units)}.{fraction} {amount.currency_code}"
