"""Random account histories for tests of statements and counters. Balances are plain sums of cents."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from diptych.banking.v1 import events_pb2
from diptych.privacy.v1.privacy_pb2 import SubjectForgotten
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from contracts.envelope import RecordedEvent

START = datetime(2026, 1, 30, 22, 0, tzinfo=UTC)
CENT = 10_000_000
BALANCE_EFFECTS: dict[Any, tuple[int, int]] = {
    events_pb2.MoneyDeposited: (1, 0),
    events_pb2.MoneyWithdrawn: (-1, 0),
    events_pb2.TransferSent: (-1, 0),
    events_pb2.TransferReceived: (1, 0),
    events_pb2.MoneyHeld: (0, 1),
    events_pb2.HeldMoneyReleased: (0, -1),
    events_pb2.HeldMoneyCaptured: (-1, -1),
}
"""Factors of an event's amount in the balance and in the held amount."""
LINE_KINDS: dict[Any, str] = {
    events_pb2.AccountOpened: "OPENED",
    events_pb2.MoneyDeposited: "DEPOSITED",
    events_pb2.MoneyWithdrawn: "WITHDRAWN",
    events_pb2.TransferSent: "SENT",
    events_pb2.TransferReceived: "RECEIVED",
    events_pb2.MoneyHeld: "HELD",
    events_pb2.HeldMoneyReleased: "RELEASED",
    events_pb2.HeldMoneyCaptured: "CAPTURED",
    events_pb2.AccountFrozen: "FROZEN",
    events_pb2.AccountUnfrozen: "UNFROZEN",
}
EVENTS_WITHOUT_AMOUNT = (events_pb2.AccountFrozen, events_pb2.AccountUnfrozen)


def money(cents: int, currency: str = "EUR") -> Money:
    units, rest = divmod(abs(cents), 100)
    sign = -1 if cents < 0 else 1
    return Money(currency_code=currency, units=sign * units, nanos=sign * rest * CENT)


class Account:
    """An account and its recorded events."""

    def __init__(self, account_id: str, currency: str = "EUR", at: datetime = START) -> None:
        self.id, self.currency = account_id, currency
        self.at = at
        self.events: list[RecordedEvent] = []
        self.cents: list[tuple[int, int]] = []
        """The balance and the held amount after each event."""
        self._append(
            events_pb2.AccountOpened(account_id=account_id, owner_id="ada", currency_code=currency), 0, 0
        )

    def record(
        self, event_class: Any, cents: int = 0, after: timedelta = timedelta(0), **fields: Any
    ) -> None:
        """Record an event of this class, `after` the previous event."""
        self.at += after
        (balance, held), (to_balance, to_held) = self.cents[-1], BALANCE_EFFECTS.get(event_class, (0, 0))
        balance, held = balance + to_balance * cents, held + to_held * cents
        if event_class in BALANCE_EFFECTS:
            fields |= {
                "amount": money(cents, self.currency),
                "balance": money(balance, self.currency),
                "held": money(held, self.currency),
            }
        self._append(event_class(account_id=self.id, **fields), balance, held)

    def forget_owner(self, after: timedelta = timedelta(0)) -> None:
        """Record that the owner was forgotten, which has no line."""
        self.at += after
        self._append(SubjectForgotten(subject_id="ada", key_id=b"k"), *self.cents[-1])

    def _append(self, message: Any, balance: int, held: int) -> None:
        version = len(self.events) + 1
        for field in message.DESCRIPTOR.fields:
            if field.message_type is Timestamp.DESCRIPTOR:
                getattr(message, field.name).FromDatetime(self.at)
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


def make_random_account(rng: random.Random, account_id: str, count: int, hours: float = 12.0) -> Account:
    """Return an account with `count` events, each up to `hours` after the previous one."""
    account = Account(account_id, rng.choice(["EUR", "CHF"]))
    for _ in range(count - 1):
        event_class = rng.choice([*BALANCE_EFFECTS, *EVENTS_WITHOUT_AMOUNT])
        cents = rng.randint(1, 100_000) if event_class in BALANCE_EFFECTS else 0
        account.record(event_class, cents, timedelta(hours=rng.uniform(0, hours)))
    return account


def parse_message(event: RecordedEvent) -> Any:
    (event_class,) = [
        event_class for event_class in LINE_KINDS if event_class.DESCRIPTOR.full_name == event.type
    ]
    return event_class.FromString(event.data)


def sum_counters(events: Iterable[RecordedEvent]) -> dict[str, dict[str, int]]:
    """Return the expected counters of each day, by the day as `2026-01-30`."""
    days: dict[str, Counter[str]] = {}
    currencies: dict[str, str] = {}
    for event in events:
        message, day = parse_message(event), f"{event.recorded_at:%Y-%m-%d}"
        if isinstance(message, events_pb2.AccountOpened):
            currencies[event.stream] = message.currency_code
        suffix = f"KIND_{LINE_KINDS[type(message)]}/{currencies[event.stream]}"
        counters = days.setdefault(day, Counter())
        counters[f"count/{suffix}"] += 1
        if type(message) in BALANCE_EFFECTS:
            counters[f"units/{suffix}"] += message.amount.units
            counters[f"nanos/{suffix}"] += message.amount.nanos
    return {day: {name: sum_ for name, sum_ in counters.items() if sum_} for day, counters in days.items()}


def join_events(accounts: Sequence[Account]) -> list[RecordedEvent]:
    return [event for account in accounts for event in account.events]
