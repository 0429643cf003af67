"""The rules of accounts. A transfer changes two streams, a distribution many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from command_server.kernel.decider import Aggregate, Decider, Rejected
from command_server.kernel.field_rules import check_fields
from tests.support.ledger.rules.messages import Deposit, Distribute, Paid, Transfer

POISON = 666
"""The amount for which `decide` raises RuntimeError."""


@dataclass(frozen=True)
class Account:
    balance: int = 0


def evolve(account: Account, event: Paid) -> Account:
    return Account(account.balance + event.amount)


ACCOUNT = Aggregate("ledger.account", Account(), evolve, (Paid,))


def list_payments(command: Deposit | Transfer | Distribute) -> dict[str, int]:
    """Return what the command pays to whom."""
    match command:
        case Deposit():
            return {command.account_id: command.amount}
        case Transfer():
            return {command.payee_id: command.amount}
        case Distribute():
            return {share.payee_id: share.amount for share in command.shares}


def streams(command: Deposit | Transfer | Distribute) -> Sequence[str]:
    ids = dict.fromkeys((command.account_id, *list_payments(command)))
    return [ACCOUNT.stream(account_id) for account_id in ids]


def decide(
    command: Deposit | Transfer | Distribute, states: Mapping[str, Account], now: datetime
) -> Mapping[str, Sequence[Paid]]:
    check_fields(command)
    payments = list_payments(command)
    if POISON in payments.values():
        raise RuntimeError("the ledger's code is broken")
    events = {ACCOUNT.stream(payee): [Paid(payee, amount)] for payee, amount in payments.items()}
    if isinstance(command, Deposit):
        return events
    payer, total = ACCOUNT.stream(command.account_id), sum(payments.values())
    if states[payer].balance < total:
        raise Rejected("LEDGER_TOO_POOR", balance=states[payer].balance)
    return {payer: [Paid(command.account_id, -total)], **events}


ACCOUNTS = Decider((Deposit, Transfer, Distribute), (ACCOUNT,), "account_id", streams, decide)
