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
from command_server.contexts.banking.domain.case import CASE
from command_server.contexts.banking.domain.compliance import (
    case_streams,
    check_outgoing_name,
    find_cash_kind,
    join,
    open_case,
)
from command_server.contexts.banking.domain.four_eyes import (
    PAYER,
    SINGLE_PERSON_LIMIT,
    count_payment,
    find_excess,
    payer_streams,
)
from command_server.contexts.banking.domain.listed_name import LISTED_NAME
from command_server.contexts.banking.domain.messages import MoneyWithdrawn, Withdraw, is_same_reference
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
from command_server.kernel.persons import list_persons, share_person

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


WITHDRAWAL = Aggregate(
    "banking.withdrawal",
    Withdrawal(),
    evolve,
    members(Event),
    subjects=lambda withdrawal, _: (withdrawal.owner_id,),
    owner="owner_id",
)


def streams(command: Command) -> Sequence[str]:
    """RequestWithdrawal also reads the account, and may open a case; so may ApproveWithdrawal."""
    name = WITHDRAWAL.stream(command.withdrawal_id)
    match command:
        case RequestWithdrawal():
            account = ACCOUNT.stream(command.account_id)
            return (name, account, *case_streams(command, command.counterparty_name))
        case ApproveWithdrawal():
            return (name, *case_streams(command, cash=True))
    return (name,)


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
            same_reference = is_same_reference(reference, withdrawal.reference)
            if (account_id, amount) == (withdrawal.account_id, withdrawal.amount) and same_reference:
                return {}
            raise AlreadyExists("WITHDRAWAL_EXISTS", withdrawal_id=id_)
        case _, Status.NONE:
            raise NotFound("WITHDRAWAL_NOT_FOUND", withdrawal_id=id_)
        case ApproveWithdrawal(_, caller, persons), Status.REQUESTED:
            if share_person(caller, persons, withdrawal.requesters):
                raise Rejected("WITHDRAWAL_SAME_CALLER", withdrawal_id=id_)
            approved = WithdrawalApproved(id_, caller, approved_at=now)
            return join({name: [approved]}, pay_out(command, withdrawal, states, now))
        case DeclineWithdrawal(_, reason, caller), Status.REQUESTED:
            return {name: [WithdrawalDeclined(id_, reason, caller, declined_at=now)]}
        case (ApproveWithdrawal(), Status.PAID) | (DeclineWithdrawal(), Status.DECLINED):
            return {}
    raise Rejected(f"WITHDRAWAL_ALREADY_{withdrawal.status.name}", withdrawal_id=id_)


def request(command: RequestWithdrawal, states: Mapping[str, Any], now: datetime) -> WithdrawalRequested:
    """Return the event of a request; funds are checked when it is approved.

    Raises:
        NotFound: the account does not exist.
        Rejected: the account is closed or in another currency, or a case was opened about the recipient.
    """
    account: Account = states[ACCOUNT.stream(command.account_id)]
    rules.check_open(account, command.account_id)
    rules.check_currency(account, command.amount)
    check_outgoing_name(command, account, command.account_id, command.counterparty_name, states, now)
    return WithdrawalRequested(
        command.withdrawal_id,
        command.account_id,
        account.owner_id,
        command.amount,
        command.reference,
        command.caller,
        list_persons(command.caller, command.persons),
        requested_at=now,
    )


def pay_out(
    command: ApproveWithdrawal, withdrawal: Withdrawal, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the events of an approved withdrawal's account, and of the case that it opens, by stream.

    Raises:
        Rejected: the account cannot pay.
    """
    id_, amount = withdrawal.account_id, withdrawal.amount
    name = ACCOUNT.stream(id_)
    account: Account = states[name]
    rules.check_can_pay(account, id_, amount)
    rules.check_daily_limit(account, amount, now)
    balance, reference = account.balance - amount, withdrawal.reference
    withdrawn = MoneyWithdrawn(
        id_, amount, reference, balance, account.held, now, command.withdrawal_id, account.owner_id
    )
    kind = find_cash_kind(amount, account.cash_out, now)
    if kind is None:
        return {name: [withdrawn]}
    others = withdrawal.requesters
    case = open_case(command, id_, account.owner_id, kind, now, amount, others=others)
    return join({name: [withdrawn]}, case)


def withdraw_streams(command: Withdraw) -> Sequence[str]:
    """Withdraw also counts for the person who pays, and may open a case."""
    cases = case_streams(command, command.counterparty_name, cash=True)
    return (ACCOUNT.stream(command.account_id), *payer_streams(command), *cases)


def withdraw(command: Withdraw, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a withdrawal without an approval by stream.

    Raises:
        NotFound: the account does not exist.
        Rejected: the account cannot pay, a case was opened about the recipient, or it is more than one person
            may pay.
    """
    check_fields(command)
    id_, amount = command.account_id, command.amount
    name = ACCOUNT.stream(id_)
    account: Account = states[name]
    rules.check_can_pay(account, id_, amount)
    rules.check_daily_limit(account, amount, now)
    check_outgoing_name(command, account, id_, command.counterparty_name, states, now)
    if counted := find_excess(command, account, states, now):
        raise Rejected("WITHDRAWAL_NEEDS_APPROVAL", above=SINGLE_PERSON_LIMIT, counted=counted)
    balance = account.balance - amount
    withdrawn = MoneyWithdrawn(
        id_, amount, command.reference, balance, account.held, now, owner_id=account.owner_id
    )
    kind = find_cash_kind(amount, account.cash_out, now)
    case = open_case(command, id_, account.owner_id, kind, now, amount) if kind else {}
    return join({name: [withdrawn]}, count_payment(command, now), case)


COMPLIANCE = (CASE, LISTED_NAME)


def owned_streams(command: RequestWithdrawal) -> Sequence[str]:
    """The withdrawal, if there is one, and the account must be the caller's."""
    return WITHDRAWAL.stream(command.withdrawal_id), ACCOUNT.stream(command.account_id)


DECIDER = Decider(
    members(Command),
    (WITHDRAWAL, ACCOUNT, *COMPLIANCE),
    "withdrawal_id",
    streams,
    decide,
    related_streams,
    owned_streams=owned_streams,
)
WITHDRAW_DECIDER = Decider(
    (Withdraw,), (ACCOUNT, PAYER, *COMPLIANCE), "account_id", withdraw_streams, withdraw
)
