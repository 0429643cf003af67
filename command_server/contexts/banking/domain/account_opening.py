"""The opening of accounts, and deposits: money that comes in from outside.

Both may open a case (`compliance.py`), which the account is frozen by; the account is opened and the money
booked.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, Account, Status
from command_server.contexts.banking.domain.case import CASE
from command_server.contexts.banking.domain.compliance import (
    case_streams,
    find_cash_kind,
    has_listed_name,
    join,
    open_case,
)
from command_server.contexts.banking.domain.four_eyes import SINGLE_PERSON_LIMIT
from command_server.contexts.banking.domain.listed_name import LISTED_NAME
from command_server.contexts.banking.domain.messages import (
    AccountOpened,
    CaseKind,
    Deposit,
    MoneyDeposited,
    OpenAccount,
)
from command_server.kernel.decider import AlreadyExists, Decider, Rejected
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

EventsByStream = Mapping[str, Sequence[Any]]
OVERDRAFT = "banking.overdraft"
"""The scope without which nobody gets an overdraft limit: who opens an account may be its owner."""


def open_streams(command: OpenAccount) -> Sequence[str]:
    return (ACCOUNT.stream(command.account_id), *case_streams(command, command.owner_name))


def decide_open(command: OpenAccount, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a new account by stream."""
    check_fields(command)
    name, id_ = ACCOUNT.stream(command.account_id), command.account_id
    opened = open_account(command, states[name], now)
    if not has_listed_name(command, command.owner_name, "owner_name", states):
        return {name: [opened]}
    kind, owner_name = CaseKind.LISTED_NAME, command.owner_name
    return join({name: [opened]}, open_case(command, id_, command.owner_id, kind, now, name=owner_name))


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
    if overdraft_limit and OVERDRAFT not in command.scopes:
        raise Rejected("OVERDRAFT_NOT_ALLOWED", scope=OVERDRAFT)
    if Money(currency, SINGLE_PERSON_LIMIT) < overdraft_limit:
        raise Rejected("OVERDRAFT_NEEDS_APPROVAL", above=SINGLE_PERSON_LIMIT)
    return AccountOpened(id_, command.owner_id, currency, overdraft_limit, daily_limit, opened_at=now)


def deposit_streams(command: Deposit) -> Sequence[str]:
    """Deposit may also open a case, by its amount, by those before it, or by a name."""
    return (
        ACCOUNT.stream(command.account_id),
        *case_streams(command, command.counterparty_name, cash=True),
    )


def decide_deposit(command: Deposit, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a deposit by stream.

    Raises:
        NotFound: the account does not exist.
        Rejected: the account cannot receive the money, or the other party's name is none.
    """
    check_fields(command)
    id_, amount, other = command.account_id, command.amount, command.counterparty_name
    name = ACCOUNT.stream(id_)
    account: Account = states[name]
    rules.check_can_receive(account, id_, amount)
    balance = account.balance + amount
    deposited = MoneyDeposited(
        id_, amount, command.reference, balance, account.held, now, owner_id=account.owner_id
    )
    is_listed = has_listed_name(command, other, "counterparty_name", states)
    kind = CaseKind.LISTED_NAME if is_listed else find_cash_kind(amount, account.cash_in, now)
    if kind is None:
        return {name: [deposited]}
    return join({name: [deposited]}, open_case(command, id_, account.owner_id, kind, now, amount, other))


AGGREGATES = (ACCOUNT, CASE, LISTED_NAME)
OPEN_DECIDER = Decider((OpenAccount,), AGGREGATES, "account_id", open_streams, decide_open)
DEPOSIT_DECIDER = Decider((Deposit,), AGGREGATES, "account_id", deposit_streams, decide_deposit)
