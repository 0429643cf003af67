"""What is done with a single account: opened, paid into, paid out of, frozen, closed."""

from collections.abc import Sequence
from datetime import datetime

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, Account, Event, Frozen, Status
from command_server.contexts.banking.domain.messages import (
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    CloseAccount,
    Deposit,
    FreezeAccount,
    MoneyDeposited,
    MoneyWithdrawn,
    OpenAccount,
    UnfreezeAccount,
    Withdraw,
)
from command_server.kernel.decider import AlreadyExists, Rejected, one_stream
from command_server.kernel.money import Money

Command = OpenAccount | Deposit | Withdraw | FreezeAccount | UnfreezeAccount | CloseAccount


def decide(command: Command, account: Account, now: datetime) -> Sequence[Event]:
    """Return what happens to the account, or raise Rejected."""
    id_ = command.account_id
    match command:
        case OpenAccount():
            return [opened(command, account, now)]
        case Deposit(_, amount, reference):
            rules.check_takes(account, id_, amount)
            after = account.balance + amount
            return [MoneyDeposited(id_, amount, reference, after, account.held, deposited_at=now)]
        case Withdraw(_, amount, reference):
            rules.check_gives(account, id_, amount)
            rules.check_day(account, amount, now)
            after = account.balance - amount
            return [MoneyWithdrawn(id_, amount, reference, after, account.held, withdrawn_at=now)]
        case CloseAccount() if account.status is Status.CLOSED:
            return []
    rules.check_usable(account, id_)
    match command:
        case FreezeAccount(_, reason, incoming_too):
            wanted = Frozen.TAKES_NOTHING_EITHER if incoming_too else Frozen.GIVES_NOTHING
            same = account.frozen is wanted
            return [] if same else [AccountFrozen(id_, reason, incoming_too, frozen_at=now)]
        case UnfreezeAccount():
            return [] if account.frozen is Frozen.NOT else [AccountUnfrozen(id_, unfrozen_at=now)]
        case CloseAccount():
            if account.balance or account.held:
                raise Rejected("ACCOUNT_NOT_EMPTY", account_id=id_)
            return [AccountClosed(id_, closed_at=now)]


def opened(command: OpenAccount, account: Account, now: datetime) -> AccountOpened:
    """Return that an account begins, with limits in its own currency."""
    id_, currency = command.account_id, command.currency_code
    if account.status is not Status.NONE:
        raise AlreadyExists("ACCOUNT_EXISTS", account_id=id_)
    limit, daily = command.overdraft_limit or Money(currency, 0), command.daily_withdrawal_limit
    for amount in (limit, daily):
        if amount is not None and amount.currency_code != currency:
            raise Rejected("CURRENCY_MISMATCH", account=currency, asked=amount.currency_code)
    return AccountOpened(id_, command.owner_id, currency, limit, daily, opened_at=now)


DECIDER = one_stream(ACCOUNT, Command, key="account_id", decide=decide)
