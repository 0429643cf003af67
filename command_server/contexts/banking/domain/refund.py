"""The refund aggregate: money is paid back into an account, once for each refund id.

The id comes from what is refunded, not from the request, so a repetition pays nothing, whoever sends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.messages import (
    MoneyDeposited,
    PayRefund,
    RefundPaid,
    is_same_reference,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money


@dataclass(frozen=True, slots=True)
class Refund:
    """The state of a refund: its contents, empty before it is paid."""

    account_id: str = ""
    amount: Money = NO_MONEY
    reference: str = ""
    owner_id: str = ""
    """Of the account; empty for refunds of earlier releases."""


def evolve(_: Refund, event: RefundPaid) -> Refund:
    return Refund(event.account_id, event.amount, event.reference, event.owner_id)


REFUND = Aggregate(
    "banking.refund", Refund(), evolve, (RefundPaid,), subjects=lambda refund, _: (refund.owner_id,)
)


def streams(command: PayRefund) -> Sequence[str]:
    """The account comes first, so that the receipt names what queries can find."""
    return ACCOUNT.stream(command.account_id), REFUND.stream(command.refund_id)


def decide(
    command: PayRefund, states: Mapping[str, Any], now: datetime
) -> Mapping[str, Sequence[MoneyDeposited | RefundPaid]]:
    """Return the events of a refund by stream, or none if the same refund was paid before."""
    check_fields(command)
    account_name, refund_name = streams(command)
    refund: Refund = states[refund_name]
    id_, account_id = command.refund_id, command.account_id
    amount, reference = command.amount, command.reference
    if refund.account_id:
        same_reference = is_same_reference(reference, refund.reference)
        if (account_id, amount) == (refund.account_id, refund.amount) and same_reference:
            return {}
        raise AlreadyExists("REFUND_EXISTS", refund_id=id_)
    account: Account = states[account_name]
    rules.check_can_receive(account, account_id, amount)
    balance = account.balance + amount
    owner_id = account.owner_id
    deposited = MoneyDeposited(account_id, amount, reference, balance, account.held, now, id_, owner_id)
    paid = RefundPaid(id_, account_id, amount, reference, now, owner_id)
    return {account_name: [deposited], refund_name: [paid]}


DECIDER = Decider((PayRefund,), (ACCOUNT, REFUND), "account_id", streams, decide)
