"""Recorded events of cheques and accounts, and the views that verify's folds expect of them.

The expectations share nothing with the handlers of the projections.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from operations.verify.model import Event, ProjectionSpec
from tests.support.ledger import verification
from tests.support.ledger.events import EVENTS
from tests.support.ledger.stubs import events, events_v2

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHEQUE_SPEC: ProjectionSpec = verification.AGGREGATES[0].projections[0]
HISTORY_SPEC: ProjectionSpec = verification.AGGREGATES[0].projections[1]
ACCOUNT_SPEC: ProjectionSpec = verification.AGGREGATES[1].projections[0]
Counters = dict[str, dict[str, int]]
"""The amounts of counters, by key and name."""


def written(cheque_id: str, account: str = "a-1", minute: int = 0, cents: int = 1234) -> Any:
    at = START.replace(minute=minute)
    event = events_v2.ChequeWritten(cheque_id=cheque_id, account_id=account, amount=cents, written_at=at)
    event.writer, event.currency_code = "ada", "EUR"
    return event


def written_v1(cheque_id: str) -> Any:
    return events.ChequeWritten(cheque_id=cheque_id, account_id="a-1", amount=7, written_at=START)


def endorsed(cheque_id: str, endorser: str = "bob") -> Any:
    return events.ChequeEndorsed(cheque_id=cheque_id, endorser=endorser, endorsed_at=START)


def cashed(cheque_id: str) -> Any:
    return events.ChequeCashed(cheque_id=cheque_id, cashed_at=START)


def voided(cheque_id: str, reason: str = "changed my mind") -> Any:
    return events.ChequeVoided(cheque_id=cheque_id, reason=reason, voided_at=START)


def paid(account_id: str, cents: int) -> Any:
    return events.Paid(account_id=account_id, amount=cents)


def recorded(version: int, event: Any, *, at: Any = None, **metadata: str) -> RecordedEvent:
    """Return an event of a cheque or an account as it is recorded, by default at this moment."""
    is_payment = event.DESCRIPTOR.name == "Paid"
    stream = f"ledger.account.{event.account_id}" if is_payment else f"ledger.cheque.{event.cheque_id}"
    return RecordedEvent(
        stream=stream,
        version=version,
        type=event.DESCRIPTOR.full_name,
        data=event.SerializeToString(),
        recorded_at=at or datetime.now(UTC),
        position=version,
        metadata=metadata,
    )


def cheque_events(cheque_id: str, account: str = "a-1", minute: int = 0) -> list[RecordedEvent]:
    """Return all events of a cheque that is written, endorsed and voided."""
    events_of_cheque = (written(cheque_id, account, minute), endorsed(cheque_id), voided(cheque_id))
    return [recorded(version, event) for version, event in enumerate(events_of_cheque, 1)]


def random_cheque_events(rng: random.Random, cheque_id: str, accounts: int = 3) -> list[RecordedEvent]:
    """Return a random run of events of a cheque, whose first event is of either version."""
    cents = rng.choice([0, 1, 10**14 - 1])
    first = written(cheque_id, f"a-{rng.randrange(accounts)}", rng.randrange(60), cents)
    first.currency_code = rng.choice(["EUR", "USD"])
    messages: list[Any] = [rng.choice([first, written_v1(cheque_id)])]
    messages += [endorsed(cheque_id, f"e-{number}") for number in range(rng.randrange(8))]
    messages += rng.choice([[], [cashed(cheque_id)], [voided(cheque_id, "enough")]])
    return [recorded(version, event, actor="ada") for version, event in enumerate(messages, 1)]


def random_payments(rng: random.Random, account_id: str, count: int) -> list[RecordedEvent]:
    """Return the events of an account with random payments, over several days."""
    at, history = START, list[RecordedEvent]()
    for version in range(1, count + 1):
        at += timedelta(hours=rng.uniform(0, 20))
        history.append(recorded(version, paid(account_id, rng.choice([-1, 1]) * rng.randrange(10**4)), at=at))
    return history


def cheque(history: Sequence[RecordedEvent]) -> Any:
    """Return the cheque after these events, which begin with its first."""
    return CHEQUE_SPEC.fold(_parse(history))


def cheque_history(history: Sequence[RecordedEvent]) -> Any:
    """Return the view of a cheque's history after these events."""
    return HISTORY_SPEC.fold(_parse(history))


def counters(cheques: Iterable[Message]) -> Counters:
    """Return the counters of the accounts of these cheques; without those of zero."""
    return _sum(each for view in cheques for each in CHEQUE_SPEC.contributions(view))


def day_counters(histories: Iterable[Sequence[RecordedEvent]]) -> Counters:
    """Return the counters of all days of these accounts."""
    assert ACCOUNT_SPEC.history is not None
    assert ACCOUNT_SPEC.event_contributions is not None
    entries = [entry for history in histories for entry in ACCOUNT_SPEC.history(_parse(history))]
    return _sum(each for entry in entries for each in ACCOUNT_SPEC.event_contributions(entry))


def _sum(contributions: Iterable[tuple[str, str, int]]) -> Counters:
    hashes: dict[str, Counter[str]] = {}
    for key, name, amount in contributions:
        hashes.setdefault(key, Counter())[name] += amount
    return {key: dict(amounts) for key, amounts in hashes.items()}


def _parse(history: Sequence[RecordedEvent]) -> list[Event]:
    return [Event(event, EVENTS.decode(event)) for event in history]
