"""Commands that change a single account: open, deposit, freeze, unfreeze, close."""

from collections.abc import Sequence
from datetime import datetime

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, Account, Event, Freeze, Status
from command_server.contexts.banking.domain.messages import (
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    CloseAccount,
    Deposit,
    FreezeAccount,
    MoneyDeposited,
    OpenAccount,
    UnfreezeAccount,
)
from command_server.kernel.decider import AlreadyExists, Rejected, one_stream
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

Command = OpenAccount | Deposit | FreezeAccount | UnfreezeAccount | CloseAccount


def decide(command: Command, account: Account, now: datetime) -> Sequence[Event]:
    check_fields(command)
    id_ = command.account_id
    match command:
        case OpenAccount():
            return [open_account(command, account, now)]
        case Deposit(_, amount, reference):
            rules.check_can_receive(account, id_, amount)
            balance = account.balance + amount
            return [MoneyDeposited(id_, amount, reference, balance, account.held, deposited_at=now)]
        case CloseAccount() if account.status is Status.CLOSED:
            return []
    rules.check_open(account, id_)
    match command:
        case FreezeAccount(_, reason, incoming_too):
            if account.freeze is Freeze.of(incoming_too=incoming_too):
                return []
            return [AccountFrozen(id_, reason, incoming_too, frozen_at=now)]
        case UnfreezeAccount():
            return [] if account.freeze is Freeze.NONE else [AccountUnfrozen(id_, unfrozen_at=now)]
        case CloseAccount():
            if account.balance or account.held:
                raise Rejected("ACCOUNT_NOT_EMPTY", account_id=id_)
            return [AccountClosed(id_, closed_at=now)]


def open_account(command: OpenAccount, account: Account, now: datetime) -> AccountOpened:
    """Return the event of a new account, whose limits must be in its own currency."""
    id_, currency = command.account_id, command.currency_code
    if account.status is not Status.NONE:
        raise AlreadyExists("ACCOUNT_EXISTS", account_id=id_)
    overdraft_limit = command.overdraft_limit or Money(currency, 0)
    daily_limit = command.daily_withdrawal_limit
    for limit in (overdraft_limit, daily_limit):
        if limit is not None and limit.currency_code != currency:
            raise Rejected("CURRENCY_MISMATCH", account=currency, asked=limit.currency_code)
    return AccountOpened(id_, command.owner_id, currency, overdraft_limit, daily_limit, opened_at=now)


DECIDER = one_stream(ACCOUNT, Command, key="account_id", decide=decide)
