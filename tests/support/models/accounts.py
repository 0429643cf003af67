"""Accounts' lives at random, event by event, with the balances that a plain sum gives."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from diptych.banking.v1 import events_pb2 as happened
from google.type.money_pb2 import Money

from contracts.envelope import RecordedEvent

START = datetime(2026, 1, 30, 22, 0, tzinfo=UTC)
CENT = 10_000_000
SIGNS: dict[Any, tuple[int, int]] = {
    happened.MoneyDeposited: (1, 0),
    happened.MoneyWithdrawn: (-1, 0),
    happened.TransferSent: (-1, 0),
    happened.TransferReceived: (1, 0),
    happened.MoneyHeld: (0, 1),
    happened.HeldMoneyReleased: (0, -1),
    happened.HeldMoneyCaptured: (-1, -1),
}
"""What is added to the balance and to what is held."""
KINDS: dict[Any, str] = {
    happened.AccountOpened: "OPENED",
    happened.MoneyDeposited: "DEPOSITED",
    happened.MoneyWithdrawn: "WITHDRAWN",
    happened.TransferSent: "SENT",
    happened.TransferReceived: "RECEIVED",
    happened.MoneyHeld: "HELD",
    happened.HeldMoneyReleased: "RELEASED",
    happened.HeldMoneyCaptured: "CAPTURED",
    happened.AccountFrozen: "FROZEN",
    happened.AccountUnfrozen: "UNFROZEN",
}
IDLE = (happened.AccountFrozen, happened.AccountUnfrozen)


def money(cents: int, currency: str = "EUR") -> Money:
    units, rest = divmod(abs(cents), 100)
    sign = -1 if cents < 0 else 1
    return Money(currency_code=currency, units=sign * units, nanos=sign * rest * CENT)


class Account:
    """An account, and what has happened to it."""

    def __init__(self, account_id: str, currency: str = "EUR", at: datetime = START) -> None:
        self.id, self.currency = account_id, currency
        self.at = at
        self.events: list[RecordedEvent] = []
        self.cents: list[tuple[int, int]] = []
        """The balance and what is held after each event."""
        self._add(happened.AccountOpened(account_id=account_id, owner_id="ada", currency_code=currency), 0, 0)

    def move(self, kind: Any, cents: int = 0, after: timedelta = timedelta(0), **fields: Any) -> None:
        """Let something happen a while after what happened last."""
        self.at += after
        (balance, held), (to_balance, to_held) = self.cents[-1], SIGNS.get(kind, (0, 0))
        balance, held = balance + to_balance * cents, held + to_held * cents
        if kind in SIGNS:
            fields |= {
                "amount": money(cents, self.currency),
                "balance": money(balance, self.currency),
                "held": money(held, self.currency),
            }
        self._add(kind(account_id=self.id, **fields), balance, held)

    def _add(self, message: Any, balance: int, held: int) -> None:
        version = len(self.events) + 1
        self.cents.append((balance, held))
        self.events.append(
            RecordedEvent(
                f"banking.account.{self.id}",
                version,
                message.DESCRIPTOR.full_name,
                message.SerializeToString(),
                self.at,
                version,
                {"actor": "alice"},
            )
        )


def at_random(chance: random.Random, account_id: str, count: int, hours: float = 12.0) -> Account:
    """Return an account with so many events, up to so many hours from one to the next."""
    account = Account(account_id, chance.choice(["EUR", "CHF"]))
    for _ in range(count - 1):
        kind = chance.choice([*SIGNS, *IDLE])
        cents = chance.randint(1, 100_000) if kind in SIGNS else 0
        account.move(kind, cents, timedelta(hours=chance.uniform(0, hours)))
    return account


def message_of(event: RecordedEvent) -> Any:
    (kind,) = [kind for kind in KINDS if kind.DESCRIPTOR.full_name == event.type]
    return kind.FromString(event.data)


def sums(events: Iterable[RecordedEvent]) -> dict[str, dict[str, int]]:
    """Return what the counters of each day come to, by the day."""
    days: dict[str, Counter[str]] = {}
    currencies: dict[str, str] = {}
    for event in events:
        message, day = message_of(event), f"{event.recorded_at:%Y-%m-%d}"
        if isinstance(message, happened.AccountOpened):
            currencies[event.stream] = message.currency_code
        what = f"KIND_{KINDS[type(message)]}/{currencies[event.stream]}"
        tally = days.setdefault(day, Counter())
        tally[f"count/{what}"] += 1
        if type(message) in SIGNS:
            tally[f"units/{what}"] += message.amount.units
            tally[f"nanos/{what}"] += message.amount.nanos
    return {day: {name: sum_ for name, sum_ in tally.items() if sum_} for day, tally in days.items()}


def all_of(accounts: Sequence[Account]) -> list[RecordedEvent]:
    return [event for account in accounts for event in account.events]
