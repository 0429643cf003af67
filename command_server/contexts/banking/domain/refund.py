"""The refund aggregate: money is paid back into an account, once for each refund id.

The id comes from what is refunded, not from the request, so a repetition pays nothing, whoever sends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.messages import MoneyDeposited, PayRefund, RefundPaid
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money


@dataclass(frozen=True, slots=True)
class Refund:
    """The state of a refund: its contents, empty before it is paid."""

    account_id: str = ""
    amount: Money = NO_MONEY
    reference: str = ""


def evolve(_: Refund, event: RefundPaid) -> Refund:
    return Refund(event.account_id, event.amount, event.reference)


REFUND = Aggregate("banking.refund", Refund(), evolve, (RefundPaid,))


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
    if refund == Refund(account_id, amount, reference):
        return {}
    if refund.account_id:
        raise AlreadyExists("REFUND_EXISTS", refund_id=id_)
    account: Account = states[account_name]
    rules.check_can_receive(account, account_id, amount)
    balance = account.balance + amount
    deposited = MoneyDeposited(account_id, amount, reference, balance, account.held, now, id_)
    paid = RefundPaid(id_, account_id, amount, reference, paid_at=now)
    return {account_name: [deposited], refund_name: [paid]}


DECIDER = Decider((PayRefund,), (ACCOUNT, REFUND), "account_id", streams, decide)
