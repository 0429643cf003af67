"""The rules of compliance: payments that open a case, in the transaction of the command that gives cause to
it.

Large cash is a deposit or a withdrawal of LARGE_CASH units or more. Several smaller ones in one direction
that are as much together within 24 hours are taken for a large one in pieces. A payment with a listed name
opens a case, too: what comes in is booked, what is to go out does not, and the command is rejected as if the
account had been frozen before it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from command_server.contexts.banking.domain.account import ACCOUNT, LARGE_CASH, Account
from command_server.contexts.banking.domain.case import CASE, make_case_id
from command_server.contexts.banking.domain.case_messages import CaseOpened
from command_server.contexts.banking.domain.listed_name import check_name, is_listed, list_streams
from command_server.contexts.banking.domain.messages import AccountBlocked, CaseKind
from command_server.contexts.banking.domain.payment_window import Window, list_counted, sum_window
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from command_server.kernel.persons import list_persons

PIECES = 3
"""The least number of payments that are taken for a large one in pieces."""

EventsByStream = Mapping[str, Sequence[Any]]


def case_streams(command: Any, name: str = "", *, cash: bool = False) -> Sequence[str]:
    """Return the stream of the case that a command may open, and those of the name in it.

    Args:
        command: with the fields `caller`, `persons`, `request_id` and `unique_values`.
        name: of the other party; empty if the command has none.
        cash: whether the command may open a case without a name.
    """
    names = list_streams(name, command.unique_values) if name else []
    case = [CASE.stream(make_case_id(command.caller, command.request_id))] if names or cash else []
    return [*case, *names]


def find_cash_kind(amount: Money, window: Window, now: datetime) -> CaseKind | None:
    """Return what the rules find about a payment in cash.

    Args:
        amount: of the payment.
        window: the smaller payments before it, in the same direction.
        now: the time of the payment.
    """
    limit = Money(amount.currency_code, LARGE_CASH)
    if limit <= amount:
        return CaseKind.LARGE_CASH
    count = 1 + sum(bucket.count for bucket in list_counted(window, now))
    together = sum_window(window, amount.currency_code, now) + amount
    return CaseKind.STRUCTURING if count >= PIECES and limit <= together else None


def has_listed_name(command: Any, name: str, field: str, states: Mapping[str, Any]) -> bool:
    """Return whether the name in a command is on the list.

    Raises:
        Rejected: it is no name.
    """
    if not name:
        return False
    check_name(field, name, command.unique_values)
    return is_listed(name, command.unique_values, states)


def open_case(
    command: Any,
    account_id: str,
    owner_id: str,
    kind: CaseKind,
    now: datetime,
    amount: Money | None = None,
    name: str = "",
    others: Sequence[str] = (),
) -> EventsByStream:
    """Return the events of a new case and its account, by stream.

    Args:
        command: gives cause to it; its persons may not clear the case.
        account_id: the account.
        owner_id: the account's owner.
        kind: what was found.
        now: the time of the command.
        amount: of the payment.
        name: of the other party.
        others: more persons who may not clear it.
    """
    id_ = make_case_id(command.caller, command.request_id)
    causers = list_persons(command.caller, command.persons, others)
    opened = CaseOpened(id_, account_id, owner_id, kind, amount, name, command.caller, causers, opened_at=now)
    blocked = AccountBlocked(account_id, id_, kind, blocked_at=now)
    return {CASE.stream(id_): [opened], ACCOUNT.stream(account_id): [blocked]}


def check_outgoing_name(
    command: Any, account: Account, account_id: str, name: str, states: Mapping[str, Any], now: datetime
) -> None:
    """Reject a payment to a listed name, and record the case that it opens.

    Raises:
        Rejected: the name is listed; or it is no name.
    """
    if has_listed_name(command, name, "counterparty_name", states):
        kind, owner_id, amount = CaseKind.LISTED_NAME, account.owner_id, command.amount
        case = open_case(command, account_id, owner_id, kind, now, amount, name)
        raise Rejected("ACCOUNT_FROZEN", account_id=account_id).recording(case)


def join(*parts: EventsByStream) -> EventsByStream:
    """Return the events of several mappings by stream, in their order."""
    joined: dict[str, list[Any]] = {}
    for part in parts:
        for name, events in part.items():
            joined.setdefault(name, []).extend(events)
    return joined
