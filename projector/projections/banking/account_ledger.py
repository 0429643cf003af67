"""An account's ledger: a line of the statement for each event, and the sums of each day over all accounts."""

from collections.abc import Iterable
from datetime import UTC

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views
from google.type.money_pb2 import Money

from contracts.envelope import RecordedEvent
from contracts.view_layout import View
from projector.projection import Contribution, Projection
from projector.projections.banking.account import NANOS, Movement

VIEW = View.of(views.AccountLedger)
Kind = views.Transaction.Kind
MOVEMENTS: dict[type[Movement], tuple[Kind.ValueType, str, str, str]] = {
    events.MoneyDeposited: (views.Transaction.KIND_DEPOSITED, "reference", "", ""),
    events.MoneyWithdrawn: (views.Transaction.KIND_WITHDRAWN, "reference", "", ""),
    events.TransferSent: (views.Transaction.KIND_SENT, "reference", "to_account_id", "transfer_id"),
    events.TransferReceived: (views.Transaction.KIND_RECEIVED, "reference", "from_account_id", "transfer_id"),
    events.MoneyHeld: (views.Transaction.KIND_HELD, "", "", "hold_id"),
    events.HeldMoneyReleased: (views.Transaction.KIND_RELEASED, "", "", "hold_id"),
    events.HeldMoneyCaptured: (views.Transaction.KIND_CAPTURED, "", "", "hold_id"),
}
"""Which kind of line an event makes; which of its fields say what for, with whom, and to what it belongs."""
COMES_IN = (views.Transaction.KIND_DEPOSITED, views.Transaction.KIND_RECEIVED)


def line(ledger: views.AccountLedger, event: RecordedEvent) -> views.Transaction:
    """Return the line of the last event. The kernel's times never go back within a stream."""
    history_entries = views.Transaction(version=event.version, actor=event.metadata.get("actor", ""))
    history_entries.MergeFrom(ledger.last)
    history_entries.book_time.FromDatetime(event.recorded_at)
    return history_entries


def day(history_entries: views.Transaction) -> Iterable[Contribution]:
    """Every line counts on its day, by kind and currency."""
    key = VIEW.event_counters("day", history_entries.book_time.ToDatetime(UTC).date().isoformat())
    what = f"{Kind.Name(history_entries.kind)}/{history_entries.balance.currency_code}"
    return (
        (key, f"count/{what}", 1),
        (key, f"units/{what}", history_entries.amount.units),
        (key, f"nanos/{what}", history_entries.amount.nanos),
    )


LEDGERS = Projection[views.AccountLedger](VIEW, events=[events], history=line, event_contributions=day)


@LEDGERS.on(events.AccountOpened)
def opened(ledger: views.AccountLedger, event: events.AccountOpened) -> None:
    """With this a ledger begins."""
    ledger.account_id = event.account_id
    nothing = Money(currency_code=event.currency_code)
    ledger.last.CopyFrom(
        views.Transaction(
            kind=views.Transaction.KIND_OPENED, amount=nothing, balance=nothing, held=nothing, paid_in=nothing
        )
    )


def moved(ledger: views.AccountLedger, event: Movement) -> None:
    """Money was moved, or held, or let go."""
    kind, reference, counterpart, related = MOVEMENTS[type(event)]
    last = views.Transaction(
        kind=kind, amount=event.amount, balance=event.balance, held=event.held, paid_in=ledger.last.paid_in
    )
    if kind in COMES_IN:
        carry, last.paid_in.nanos = divmod(last.paid_in.nanos + event.amount.nanos, NANOS)
        last.paid_in.units += event.amount.units + carry
    last.reference = getattr(event, reference) if reference else ""
    last.counterpart_account_id = getattr(event, counterpart) if counterpart else ""
    last.related_id = getattr(event, related) if related else ""
    ledger.last.CopyFrom(last)


for movement in MOVEMENTS:
    LEDGERS.on(movement)(moved)


@LEDGERS.on(events.AccountFrozen)
def frozen(ledger: views.AccountLedger, event: events.AccountFrozen) -> None:
    """No money moves; the reason is told."""
    _stayed(ledger, views.Transaction.KIND_FROZEN, event.reason)


@LEDGERS.on(events.AccountUnfrozen)
def unfrozen(ledger: views.AccountLedger, _: events.AccountUnfrozen) -> None:
    """No money moves."""
    _stayed(ledger, views.Transaction.KIND_UNFROZEN)


@LEDGERS.on(events.AccountClosed)
def closed(ledger: views.AccountLedger, _: events.AccountClosed) -> None:
    """No money moves; there is none."""
    _stayed(ledger, views.Transaction.KIND_CLOSED)


def _stayed(ledger: views.AccountLedger, kind: Kind.ValueType, reference: str = "") -> None:
    before = ledger.last
    nothing = Money(currency_code=before.balance.currency_code)
    ledger.last.CopyFrom(
        views.Transaction(
            kind=kind,
            reference=reference,
            amount=nothing,
            balance=before.balance,
            held=before.held,
            paid_in=before.paid_in,
        )
    )
