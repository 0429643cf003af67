"""The withdrawal aggregate: money that a second person lets out of an account.

One person pays out alone as much as `four_eyes` allows (`Withdraw`, which has no aggregate of its own). More
is requested by one person, and approved or declined by another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.four_eyes import (
    PAYER,
    SINGLE_PERSON_LIMIT,
    count_payment,
    find_excess,
    name_requesters,
    payer_streams,
    share_person,
)
from command_server.contexts.banking.domain.messages import MoneyWithdrawn, Withdraw
from command_server.contexts.banking.domain.withdrawal_messages import (
    ApproveWithdrawal,
    DeclineWithdrawal,
    RequestWithdrawal,
    WithdrawalApproved,
    WithdrawalDeclined,
    WithdrawalRequested,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

Command = RequestWithdrawal | ApproveWithdrawal | DeclineWithdrawal
Event = WithdrawalRequested | WithdrawalApproved | WithdrawalDeclined
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a withdrawal; NONE before it is requested."""

    NONE = "NONE"
    REQUESTED = "REQUESTED"
    PAID = "PAID"
    DECLINED = "DECLINED"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The state of a withdrawal, as far as the rules need it."""

    status: Status = Status.NONE
    account_id: str = ""
    owner_id: str = ""
    amount: Money = NO_MONEY
    reference: str = ""
    requesters: tuple[str, ...] = ()


def evolve(withdrawal: Withdrawal, event: Event) -> Withdrawal:
    match event:
        case WithdrawalRequested(_, account_id, owner_id, amount, reference):
            status = Status.REQUESTED
            return Withdrawal(status, account_id, owner_id, amount, reference, event.requesters)
        case WithdrawalApproved():
            return replace(withdrawal, status=Status.PAID)
        case WithdrawalDeclined():
            return replace(withdrawal, status=Status.DECLINED)


WITHDRAWAL = Aggregate("banking.withdrawal", Withdrawal(), evolve, members(Event))


def streams(command: Command) -> Sequence[str]:
    """RequestWithdrawal also reads the account named in the command."""
    name = WITHDRAWAL.stream(command.withdrawal_id)
    return (name, ACCOUNT.stream(command.account_id)) if isinstance(command, RequestWithdrawal) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """ApproveWithdrawal also changes the account, which only the withdrawal's state names."""
    withdrawal: Withdrawal = states[WITHDRAWAL.stream(command.withdrawal_id)]
    pays = isinstance(command, ApproveWithdrawal) and withdrawal.status is Status.REQUESTED
    return (ACCOUNT.stream(withdrawal.account_id),) if pays else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.withdrawal_id
    name = WITHDRAWAL.stream(id_)
    withdrawal: Withdrawal = states[name]
    match command, withdrawal.status:
        case RequestWithdrawal(), Status.NONE:
            return {name: [request(command, states, now)]}
        case RequestWithdrawal(_, account_id, amount, reference), _:
            requested = withdrawal.account_id, withdrawal.amount, withdrawal.reference
            if (account_id, amount, reference) == requested:
                return {}
            raise AlreadyExists("WITHDRAWAL_EXISTS", withdrawal_id=id_)
        case _, Status.NONE:
            raise NotFound("WITHDRAWAL_NOT_FOUND", withdrawal_id=id_)
        case ApproveWithdrawal(_, caller, persons), Status.REQUESTED:
            if share_person(caller, persons, withdrawal.requesters):
                raise Rejected("WITHDRAWAL_SAME_CALLER", withdrawal_id=id_)
            approved = WithdrawalApproved(id_, caller, approved_at=now)
            return {name: [approved], **pay_out(id_, withdrawal, states, now)}
        case DeclineWithdrawal(_, reason, caller), Status.REQUESTED:
            return {name: [WithdrawalDeclined(id_, reason, caller, declined_at=now)]}
        case (ApproveWithdrawal(), Status.PAID) | (DeclineWithdrawal(), Status.DECLINED):
            return {}
    raise Rejected(f"WITHDRAWAL_ALREADY_{withdrawal.status.name}", withdrawal_id=id_)


def request(command: RequestWithdrawal, states: Mapping[str, Any], now: datetime) -> WithdrawalRequested:
    """Return the event of a request; funds are checked when it is approved.

    Raises:
        NotFound: the account does not exist.
        Rejected: the account is closed, or in another currency.
    """
    account: Account = states[ACCOUNT.stream(command.account_id)]
    rules.check_open(account, command.account_id)
    rules.check_currency(account, command.amount)
    return WithdrawalRequested(
        command.withdrawal_id,
        command.account_id,
        account.owner_id,
        command.amount,
        command.reference,
        command.caller,
        name_requesters(command.caller, command.persons),
        requested_at=now,
    )


def pay_out(
    withdrawal_id: str, withdrawal: Withdrawal, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the account's event of an approved withdrawal by stream.

    Raises:
        Rejected: the account cannot pay.
    """
    id_, amount = withdrawal.account_id, withdrawal.amount
    name = ACCOUNT.stream(id_)
    account: Account = states[name]
    rules.check_can_pay(account, id_, amount)
    rules.check_daily_limit(account, amount, now)
    balance, reference = account.balance - amount, withdrawal.reference
    return {name: [MoneyWithdrawn(id_, amount, reference, balance, account.held, now, withdrawal_id)]}


def withdraw_streams(command: Withdraw) -> Sequence[str]:
    """Withdraw also counts for the person who pays."""
    return (ACCOUNT.stream(command.account_id), *payer_streams(command))


def withdraw(command: Withdraw, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a withdrawal without an approval by stream.

    Raises:
        NotFound: the account does not exist.
        Rejected: the account cannot pay, or it is more than one person may pay.
    """
    check_fields(command)
    id_, amount = command.account_id, command.amount
    name = ACCOUNT.stream(id_)
    account: Account = states[name]
    rules.check_can_pay(account, id_, amount)
    rules.check_daily_limit(account, amount, now)
    if counted := find_excess(command, account, states, now):
        raise Rejected("WITHDRAWAL_NEEDS_APPROVAL", above=SINGLE_PERSON_LIMIT, counted=counted)
    balance = account.balance - amount
    withdrawn = MoneyWithdrawn(id_, amount, command.reference, balance, account.held, withdrawn_at=now)
    return {name: [withdrawn], **count_payment(command, now)}


DECIDER = Decider(members(Command), (WITHDRAWAL, ACCOUNT), "withdrawal_id", streams, decide, related_streams)
WITHDRAW_DECIDER = Decider((Withdraw,), (ACCOUNT, PAYER), "account_id", withdraw_streams, withdraw)
