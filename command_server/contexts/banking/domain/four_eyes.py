"""Four eyes: what one person may pay out without a second one.

Without an approval, at most SINGLE_PERSON_LIMIT leaves an account within 24 hours, and as much is paid by one
person, in each currency. The account's state has its window. That of a person is the payer aggregate, one for
each person and currency; its id is a code of both, since ids are in subjects and keys. A service that acts on
behalf of somebody is not the person, so that its calls share no stream.

What two people have agreed on counts in no window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from command_server.contexts.banking.domain.account import Account
from command_server.contexts.banking.domain.messages import Transfer, Withdraw
from command_server.contexts.banking.domain.payment_window import Window, add_payment, sum_amounts, sum_window
from command_server.contexts.banking.domain.withdrawal_messages import PaymentCounted
from command_server.kernel.decider import Aggregate, UniqueValue
from command_server.kernel.money import Money

SINGLE_PERSON_LIMIT = 10_000
"""Whole units of any currency that need no second person."""


@dataclass(frozen=True, slots=True)
class Payer:
    """The state of a payer: what one person has paid out in one currency without an approval."""

    paid: Window = ()


def evolve(payer: Payer, event: PaymentCounted) -> Payer:
    return Payer(add_payment(payer.paid, event.amount, event.counted_at))


PAYER = Aggregate("banking.payer", Payer(), evolve, (PaymentCounted,))


def payer_streams(command: Withdraw | Transfer) -> Sequence[str]:
    """Return the streams of a command's payer, the one for new payments first.

    After a rotation of keys there are several.
    """
    value = command.unique_values.get(command.payer)
    return tuple(map(PAYER.stream, value.ids)) if isinstance(value, UniqueValue) else ()


def find_excess(
    command: Withdraw | Transfer, account: Account, states: Mapping[str, Any], now: datetime
) -> str:
    """Return whose sum exceeds what one person may pay, PERSON or ACCOUNT; empty if none does."""
    amount, currency = command.amount, command.amount.currency_code
    limit = Money(currency, SINGLE_PERSON_LIMIT)
    windows = (states[name].paid for name in payer_streams(command))
    by_person = sum_amounts((sum_window(window, currency, now) for window in windows), currency)
    by_account = sum_window(account.paid_alone, currency, now)
    sums = {"PERSON": by_person, "ACCOUNT": by_account}
    return next((name for name, paid in sums.items() if limit < paid + amount), "")


def count_payment(command: Withdraw | Transfer, now: datetime) -> Mapping[str, Sequence[PaymentCounted]]:
    """Return the event that counts a payment of one person, by stream."""
    name = payer_streams(command)[0]
    return {name: [PaymentCounted(name.rpartition(".")[2], command.amount, counted_at=now)]}
