"""The ledger's views."""

from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from contracts.envelope import RecordedEvent
from contracts.view_layout import View, index_member
from projector.archival import Archival, archival_by_end_time, ended_entries
from projector.history import entry_factory, entry_time_reader
from projector.projection import Contribution, Entry, Projection
from tests.support.ledger.events import EVENTS
from tests.support.ledger.stubs import events as v1
from tests.support.ledger.stubs import events_v2 as v2
from tests.support.ledger.stubs import types as views

CHEQUE, HISTORY, ACCOUNT = (View.of(each) for each in (views.Cheque, views.ChequeHistory, views.Account))
CENT = 10_000_000
"""Nanos."""


def index_entries(cheque: Any) -> list[Entry]:
    """List cheques by account, by state, by both, and all together, sorted by the time of writing."""
    member = index_member(cheque.write_time.ToMicroseconds(), cheque.cheque_id)
    state = views.Cheque.State.Name(cheque.state)
    return [
        (CHEQUE.index("account", cheque.account_id), member),
        (CHEQUE.index("state", state), member),
        (CHEQUE.index("account_state", cheque.account_id, state), member),
        (CHEQUE.index("all"), member),
    ]


def contributions(cheque: Any) -> list[Contribution]:
    """Count an account's cheques by state, and sum their amounts by state and currency."""
    account, state = CHEQUE.counters("account", cheque.account_id), views.Cheque.State.Name(cheque.state)
    cents = cheque.amount.units * 100 + cheque.amount.nanos // CENT
    return [
        (account, f"cheques/{state}", 1),
        (account, f"cents/{state}/{cheque.amount.currency_code}", cents),
    ]


def change_feeds(cheque: Any) -> list[str]:
    return [CHEQUE.change_feed("account", cheque.account_id)]


def get_end(cheque: Any) -> Timestamp | None:
    time: Timestamp | None = None
    for name in ("cash_time", "void_time"):
        time = getattr(cheque, name) if cheque.HasField(name) else time
    return time


CHEQUES = Projection[Any](
    CHEQUE,
    events=EVENTS,
    columns=("state", "account_id", "amount", "write_time"),
    indexes=index_entries,
    contributions=contributions,
    change_feeds=change_feeds,
    archival=Archival(
        tuple(CHEQUE.index("state", state) for state in ("STATE_CASHED", "STATE_VOIDED")),
        get_end,
        kept_indexes=("account",),  # it lists the contributors
    ),
)


@CHEQUES.on(v2.ChequeWritten)
def written(cheque: Any, event: Any) -> None:
    cheque.cheque_id = event.cheque_id
    cheque.state = views.Cheque.STATE_WRITTEN
    cheque.account_id = event.account_id
    cheque.amount.currency_code = event.currency_code
    cheque.amount.units, cents = divmod(event.amount, 100)
    cheque.amount.nanos = cents * CENT
    cheque.writer = event.writer
    cheque.write_time.CopyFrom(event.written_at)


@CHEQUES.on(v1.ChequeEndorsed)
def endorsed(cheque: Any, event: Any) -> None:
    cheque.state = views.Cheque.STATE_ENDORSED
    cheque.endorsers.append(event.endorser)
    cheque.endorse_time.CopyFrom(event.endorsed_at)


@CHEQUES.on(v1.ChequeCashed)
def cashed(cheque: Any, event: Any) -> None:
    cheque.state = views.Cheque.STATE_CASHED
    cheque.cash_time.CopyFrom(event.cashed_at)


@CHEQUES.on(v1.ChequeVoided)
def voided(cheque: Any, event: Any) -> None:
    cheque.state = views.Cheque.STATE_VOIDED
    cheque.void_time.CopyFrom(event.voided_at)
    cheque.void_reason = event.reason


HISTORIES = Projection[Any](
    HISTORY,
    events=EVENTS,
    indexes=ended_entries(HISTORY, "cheque_id"),
    history=entry_factory(views.ChequeHistoryEntry),
    read_entry_time=entry_time_reader(views.ChequeHistoryEntry),
    archival=archival_by_end_time(HISTORY),
)


@HISTORIES.on(v2.ChequeWritten)
def set_id(history: Any, event: Any) -> None:
    history.cheque_id = event.cheque_id


@HISTORIES.on(v1.ChequeCashed)
def set_cash_time(history: Any, event: Any) -> None:
    history.end_time.CopyFrom(event.cashed_at)


@HISTORIES.on(v1.ChequeVoided)
def set_void_time(history: Any, event: Any) -> None:
    history.end_time.CopyFrom(event.voided_at)


_create_entry = entry_factory(views.Entry)


def create_account_entry(account: Any, event: RecordedEvent) -> Any:
    amount = v1.Paid.FromString(event.data).amount
    kind = views.Entry.KIND_PAID if amount < 0 else views.Entry.KIND_RECEIVED
    entry: Any = _create_entry(account, event)
    entry.kind, entry.amount, entry.balance = kind, abs(amount), account.balance
    return entry


def day_contributions(entry: Any) -> list[Contribution]:
    """Count the entries of a day by kind, and sum their amounts."""
    day = ACCOUNT.event_counters("day", entry.record_time.ToDatetime(UTC).date().isoformat())
    kind = views.Entry.Kind.Name(entry.kind)
    return [(day, f"count/{kind}", 1), (day, f"cents/{kind}", entry.amount)]


ACCOUNTS = Projection[Any](
    ACCOUNT,
    events=EVENTS,
    history=create_account_entry,
    event_contributions=day_contributions,
    read_entry_time=entry_time_reader(views.Entry),
)


@ACCOUNTS.on(v1.Paid)
def paid(account: Any, event: Any) -> None:
    account.account_id = event.account_id
    account.balance += event.amount


PROJECTIONS = (CHEQUES, HISTORIES, ACCOUNTS)
