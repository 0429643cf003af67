"""The ledger of an account: one statement line per event, and daily sums over all accounts."""

from collections.abc import Iterable
from datetime import UTC

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from contracts.envelope import RecordedEvent
from contracts.events.banking import EVENTS
from contracts.money import from_nanos, split_for_counters, to_nanos
from contracts.view_layout import View
from projector.history import entry_factory, entry_time_reader
from projector.projection import Contribution, Projection
from projector.projections.banking.account import Movement

VIEW = View.of(views.AccountLedger)
Kind = views.Transaction.Kind
MOVEMENTS: dict[type[Movement], tuple[Kind.ValueType, str, str, str]] = {
    events.MoneyDeposited: (views.Transaction.KIND_DEPOSITED, "reference", "", "refund_id"),
    events.MoneyWithdrawn: (views.Transaction.KIND_WITHDRAWN, "reference", "", "withdrawal_id"),
    events.TransferSent: (views.Transaction.KIND_SENT, "reference", "to_account_id", "transfer_id"),
    events.TransferReceived: (views.Transaction.KIND_RECEIVED, "reference", "from_account_id", "transfer_id"),
    events.MoneyHeld: (views.Transaction.KIND_HELD, "", "", "hold_id"),
    events.HeldMoneyReleased: (views.Transaction.KIND_RELEASED, "", "", "hold_id"),
    events.HeldMoneyCaptured: (views.Transaction.KIND_CAPTURED, "", "", "hold_id"),
}
"""Event type to the kind of line, and the names of its fields for reference, counterpart and related id."""
INCOMING = (views.Transaction.KIND_DEPOSITED, views.Transaction.KIND_RECEIVED)
WithoutMovement = (
    events.AccountFrozen
    | events.AccountUnfrozen
    | events.AccountBlocked
    | events.AccountUnblocked
    | events.OverdraftChanged
    | events.AccountClosed
)
TIME_FIELDS = {
    event: field.name
    for event in (events.AccountOpened, *MOVEMENTS, *WithoutMovement.__args__)
    for field in event.DESCRIPTOR.fields
    if field.message_type is Timestamp.DESCRIPTOR
}
"""Event type to its field with the time at which it was recorded."""

_create_entry = entry_factory(views.Transaction, record_time="book_time")


def create_line(ledger: views.AccountLedger, event: RecordedEvent) -> views.Transaction:
    """Return the line of an event, from the view after it."""
    entry, line = _create_entry(ledger, event), views.Transaction()
    entry.book_time.CopyFrom(_find_later(ledger.last.book_time, entry.book_time))
    line.CopyFrom(ledger.last)
    line.ClearField("book_time")
    line.MergeFrom(entry)
    return line


def _find_book_time(ledger: views.AccountLedger, event: Movement | WithoutMovement) -> Timestamp:
    """Return the time of an event, or of the line before it if that is later.

    The time of an event is earlier than that of the event before it if a wrong clock recorded that one.
    Statements search the lines by time, so their times must not decrease.
    """
    return _find_later(ledger.last.book_time, getattr(event, TIME_FIELDS[type(event)]))


def _find_later(one: Timestamp, other: Timestamp) -> Timestamp:
    return max(one, other, key=Timestamp.ToNanoseconds)


def daily_contributions(line: views.Transaction) -> Iterable[Contribution]:
    """Count the lines of each day (UTC) and sum their amounts, by kind and currency."""
    key = VIEW.event_counters("day", line.book_time.ToDatetime(UTC).date().isoformat())
    suffix = f"{Kind.Name(line.kind)}/{line.balance.currency_code}"
    return (
        (key, f"count/{suffix}", 1),
        *((key, f"{part}/{suffix}", value) for part, value in split_for_counters(line.amount)),
    )


LEDGERS = Projection[views.AccountLedger](
    VIEW,
    events=EVENTS,
    history=create_line,
    event_contributions=daily_contributions,
    read_entry_time=entry_time_reader(views.Transaction, "book_time"),
)


@LEDGERS.on(events.AccountOpened)
def opened(ledger: views.AccountLedger, event: events.AccountOpened) -> None:
    ledger.account_id = event.account_id
    ledger.owner_id = event.owner_id
    zero = Money(currency_code=event.currency_code)
    ledger.last.CopyFrom(
        views.Transaction(
            kind=views.Transaction.KIND_OPENED,
            amount=zero,
            balance=zero,
            held=zero,
            paid_in=zero,
            book_time=event.opened_at,
        )
    )


def moved(ledger: views.AccountLedger, event: Movement) -> None:
    kind, reference, counterpart, related = MOVEMENTS[type(event)]
    last = views.Transaction(
        kind=kind,
        amount=event.amount,
        balance=event.balance,
        held=event.held,
        paid_in=ledger.last.paid_in,
        book_time=_find_book_time(ledger, event),
    )
    if kind in INCOMING:
        paid_in = to_nanos(last.paid_in) + to_nanos(event.amount)
        last.paid_in.CopyFrom(from_nanos(last.paid_in.currency_code, paid_in))
    last.reference = getattr(event, reference) if reference else ""
    last.counterpart_account_id = getattr(event, counterpart) if counterpart else ""
    last.related_id = getattr(event, related) if related else ""
    ledger.last.CopyFrom(last)


for movement in MOVEMENTS:
    LEDGERS.on(movement)(moved)


@LEDGERS.on(events.AccountFrozen)
def frozen(ledger: views.AccountLedger, event: events.AccountFrozen) -> None:
    _set_line_without_movement(ledger, event, views.Transaction.KIND_FROZEN, event.reason)


@LEDGERS.on(events.AccountUnfrozen)
def unfrozen(ledger: views.AccountLedger, event: events.AccountUnfrozen) -> None:
    _set_line_without_movement(ledger, event, views.Transaction.KIND_UNFROZEN)


@LEDGERS.on(events.AccountBlocked)
def blocked(ledger: views.AccountLedger, event: events.AccountBlocked) -> None:
    _set_line_without_movement(ledger, event, views.Transaction.KIND_BLOCKED, related_id=event.case_id)


@LEDGERS.on(events.AccountUnblocked)
def unblocked(ledger: views.AccountLedger, event: events.AccountUnblocked) -> None:
    _set_line_without_movement(ledger, event, views.Transaction.KIND_UNBLOCKED, related_id=event.case_id)


@LEDGERS.on(events.OverdraftChanged)
def overdraft_changed(ledger: views.AccountLedger, event: events.OverdraftChanged) -> None:
    kind = views.Transaction.KIND_OVERDRAFT_CHANGED
    _set_line_without_movement(ledger, event, kind, related_id=event.overdraft_id)


@LEDGERS.on(events.AccountClosed)
def closed(ledger: views.AccountLedger, event: events.AccountClosed) -> None:
    _set_line_without_movement(ledger, event, views.Transaction.KIND_CLOSED)


def _set_line_without_movement(
    ledger: views.AccountLedger,
    event: WithoutMovement,
    kind: Kind.ValueType,
    reference: str = "",
    related_id: str = "",
) -> None:
    """Set the last line to one of zero amount, with the sums of the line before it."""
    previous_line = ledger.last
    zero = Money(currency_code=previous_line.balance.currency_code)
    ledger.last.CopyFrom(
        views.Transaction(
            kind=kind,
            reference=reference,
            related_id=related_id,
            amount=zero,
            balance=previous_line.balance,
            held=previous_line.held,
            paid_in=previous_line.paid_in,
            book_time=_find_book_time(ledger, event),
        )
    )
