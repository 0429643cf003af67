"""The independent folds of banking.

A balance is a sum of amounts here, where rules and projector copy the balance that an event carries.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from diptych.banking.v1 import events_pb2
from diptych.banking.v1 import types_pb2 as types
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from contracts.events.banking import EVENTS
from contracts.view_layout import View
from operations.verify.contexts.banking import compliance, mandate, overdraft, withdrawal
from operations.verify.contexts.banking.withdrawal import fold_window
from operations.verify.events import describe, find_last, get_first, iterate
from operations.verify.formats import (
    columns,
    encode_money,
    encode_time,
    has_end_time,
    list_ended,
    split_money,
)
from operations.verify.model import Aggregate, Event, ProjectionSpec, SagaSpec

NANOS = 10**9
NEVER = datetime.min.replace(tzinfo=UTC)
SUMS: dict[Any, tuple[int, int]] = {
    events_pb2.MoneyDeposited: (1, 0),
    events_pb2.MoneyWithdrawn: (-1, 0),
    events_pb2.TransferSent: (-1, 0),
    events_pb2.TransferReceived: (1, 0),
    events_pb2.MoneyHeld: (0, 1),
    events_pb2.HeldMoneyReleased: (0, -1),
    events_pb2.HeldMoneyCaptured: (-1, -1),
}
"""The factors with which an event's amount changes the balance and the held sum."""

ACCOUNT, LEDGER = View.of(types.Account), View.of(types.AccountLedger)
HOLD, TRANSFER = View.of(types.Hold), View.of(types.Transfer)


def _to_fraction(money: Any) -> Fraction:
    return Fraction(money.units) + Fraction(money.nanos, NANOS)


def _to_money(currency_code: str, amount: Fraction) -> Money:
    units = int(amount)  # towards zero, so the rest has the same sign
    return Money(currency_code=currency_code, units=units, nanos=int((amount - units) * NANOS))


def list_balances(events: Sequence[Event]) -> Iterator[tuple[Fraction, Fraction]]:
    """Yield the balance and the held sum after each event.

    Raises:
        ValueError: an event carries other sums, or the account is overdrawn.
    """
    limit = _to_fraction(get_first(events, events_pb2.AccountOpened).overdraft_limit)
    balance = held = Fraction(0)
    for event in events:
        message = event.message
        if isinstance(message, events_pb2.OverdraftChanged):
            limit = _to_fraction(message.overdraft_limit)
            if balance - held < -limit:
                raise ValueError("the account is overdrawn beyond its new limit")
        if type(message) not in SUMS:
            yield balance, held
            continue
        to_balance, to_held = SUMS[type(message)]
        balance += to_balance * _to_fraction(message.amount)
        held += to_held * _to_fraction(message.amount)
        if isinstance(message, events_pb2.HeldMoneyCaptured):
            held -= _to_fraction(message.released)
        if (_to_fraction(message.balance), _to_fraction(message.held)) != (balance, held):
            raise ValueError(
                f"balance and held sum of version {event.recorded.version} are not {balance} and {held}"
            )
        if held < 0 or balance - held < -limit:
            raise ValueError("the account is overdrawn beyond its limit, or the held sum is negative")
        yield balance, held


def get_balance(events: Sequence[Event]) -> tuple[Fraction, Fraction]:
    """Return the balance and the held sum after all events."""
    (last,) = deque(list_balances(events), maxlen=1)
    return last


FROZEN_STATES = {False: "STATE_FROZEN", True: "STATE_FROZEN_BOTH_WAYS"}
"""By whether incoming payments are frozen, too."""


def _find_freeze(events: Sequence[Event]) -> Any:
    """Return the freeze in force, or None."""
    last = find_last(events, events_pb2.AccountFrozen, events_pb2.AccountUnfrozen)
    return last if isinstance(last, events_pb2.AccountFrozen) else None


def fold_account(events: Sequence[Event]) -> types.Account:
    opened, (balance, held) = get_first(events, events_pb2.AccountOpened), get_balance(events)
    freeze, closed = _find_freeze(events), find_last(events, events_pb2.AccountClosed)
    changed = find_last(events, events_pb2.OverdraftChanged)
    currency, limit = opened.currency_code, (changed or opened).overdraft_limit
    cases = compliance.count_cases(events)
    state = FROZEN_STATES[bool(freeze and freeze.incoming_too)] if freeze or cases else "STATE_OPEN"
    last_freeze = find_last(events, events_pb2.AccountFrozen)
    return types.Account(
        account_id=opened.account_id,
        version=len(events),
        state=types.Account.State.Value("STATE_CLOSED" if closed else state),
        owner_id=opened.owner_id,
        currency_code=currency,
        balance=_to_money(currency, balance),
        held=_to_money(currency, held),
        available=_to_money(currency, balance - held + _to_fraction(limit)),
        overdraft_limit=limit,
        daily_withdrawal_limit=opened.daily_withdrawal_limit
        if opened.HasField("daily_withdrawal_limit")
        else None,
        open_time=opened.opened_at,
        close_time=closed and closed.closed_at,
        freeze_reason=last_freeze.reason if last_freeze else "",
        cases=cases,
        freeze_in_force=freeze is not None,
    )


def fold_account_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view, opened = fold_account(events), events[0].message
    outgoing = (events_pb2.MoneyWithdrawn, events_pb2.TransferSent)
    last_day, withdrawn = "", Fraction(0)
    for payment in iterate(events, *outgoing):
        day = _get_day(payment)
        withdrawn = _to_fraction(payment.amount) + (withdrawn if day == last_day else 0)
        last_day = day
    freeze = _find_freeze(events)
    blocked = "NONE" if freeze is None else "ALL_BLOCKED" if freeze.incoming_too else "OUTGOING_BLOCKED"
    limited = opened.HasField("daily_withdrawal_limit")
    return {
        "account_id": view.account_id,
        "owner_id": view.owner_id,
        "status": "CLOSED" if view.state == types.Account.STATE_CLOSED else "OPEN",
        "freeze": blocked,
        "balance": encode_money(view.balance),
        "held": encode_money(view.held),
        "overdraft_limit": encode_money(view.overdraft_limit),
        "daily_limit": encode_money(view.daily_withdrawal_limit) if limited else None,
        "withdrawn_on": last_day,
        "withdrawn": encode_money(_to_money(view.currency_code, withdrawn)),
        "paid_alone": fold_window(
            (_get_payment_time(payment), payment.amount)
            for payment in iterate(events, *outgoing)
            if not (
                payment.approved if isinstance(payment, events_pb2.TransferSent) else payment.withdrawal_id
            )
        ),
        "cash_in": fold_window(_list_cash(events, events_pb2.MoneyDeposited, "deposited_at")),
        "cash_out": fold_window(_list_cash(events, events_pb2.MoneyWithdrawn, "withdrawn_at")),
        "cases": view.cases,
    }


def _list_cash(events: Sequence[Event], kind: Any, time_field: str) -> Iterator[tuple[Any, Any]]:
    """Yield the times and amounts of small deposits or withdrawals since the last case about such."""
    found = sum(map(_is_found, iterate(events, events_pb2.AccountBlocked)))
    for message in iterate(events, kind, events_pb2.AccountBlocked):
        if isinstance(message, events_pb2.AccountBlocked):
            found -= _is_found(message)
        elif not found and message.amount.units < 10_000 and not getattr(message, "refund_id", ""):
            yield getattr(message, time_field), message.amount


def _is_found(block: Any) -> bool:
    return bool(block.kind == types.CASE_KIND_STRUCTURING)


def _get_day(payment: Any) -> str:
    return str(_get_payment_time(payment).ToDatetime(UTC).date().isoformat())


def _get_payment_time(payment: Any) -> Any:
    return payment.withdrawn_at if isinstance(payment, events_pb2.MoneyWithdrawn) else payment.sent_at


TRANSACTIONS: dict[Any, tuple[str, str, str, str]] = {
    events_pb2.AccountOpened: ("OPENED", "", "", ""),
    events_pb2.MoneyDeposited: ("DEPOSITED", "reference", "", "refund_id"),
    events_pb2.MoneyWithdrawn: ("WITHDRAWN", "reference", "", "withdrawal_id"),
    events_pb2.TransferSent: ("SENT", "reference", "to_account_id", "transfer_id"),
    events_pb2.TransferReceived: ("RECEIVED", "reference", "from_account_id", "transfer_id"),
    events_pb2.MoneyHeld: ("HELD", "", "", "hold_id"),
    events_pb2.HeldMoneyReleased: ("RELEASED", "", "", "hold_id"),
    events_pb2.HeldMoneyCaptured: ("CAPTURED", "", "", "hold_id"),
    events_pb2.AccountFrozen: ("FROZEN", "reason", "", ""),
    events_pb2.AccountUnfrozen: ("UNFROZEN", "", "", ""),
    events_pb2.AccountBlocked: ("BLOCKED", "", "", "case_id"),
    events_pb2.AccountUnblocked: ("UNBLOCKED", "", "", "case_id"),
    events_pb2.OverdraftChanged: ("OVERDRAFT_CHANGED", "", "", "overdraft_id"),
    events_pb2.AccountClosed: ("CLOSED", "", "", ""),
}
"""Event to (kind of the transaction, and the event fields of its reference, counterpart and related id)."""


def list_transactions(events: Sequence[Event]) -> Iterator[types.Transaction]:
    """Yield the lines of an account's statement; their sums are computed here, not copied from events.

    A line is never booked before the previous one, although its event may have an earlier time than that of
    the previous line, if a wrong clock recorded that one.
    """
    currency = get_first(events, events_pb2.AccountOpened).currency_code if events else ""
    paid_in, latest = Fraction(0), NEVER
    for event, (balance, held) in zip(events, list_balances(events) if events else (), strict=True):
        message = event.message
        name, reference, counterpart, related = TRANSACTIONS[type(message)]
        amount = _to_fraction(message.amount) if type(message) in SUMS else Fraction(0)
        paid_in += amount if name in ("DEPOSITED", "RECEIVED") else 0
        transaction = types.Transaction(
            **describe(event, "version", "actor"),
            kind=types.Transaction.Kind.Value(f"KIND_{name}"),
            amount=_to_money(currency, amount),
            balance=_to_money(currency, balance),
            held=_to_money(currency, held),
            paid_in=_to_money(currency, paid_in),
            reference=getattr(message, reference) if reference else "",
            counterpart_account_id=getattr(message, counterpart) if counterpart else "",
            related_id=getattr(message, related) if related else "",
        )
        latest = max(latest, _get_time(message))
        transaction.book_time.FromDatetime(max(latest, event.recorded.recorded_at))
        yield transaction


def _get_time(message: Any) -> datetime:
    """Return the time that an event of an account carries: its only Timestamp."""
    (time,) = [value for field, value in message.ListFields() if field.message_type is Timestamp.DESCRIPTOR]
    return time.ToDatetime(UTC)  # type: ignore[no-any-return]


def fold_ledger(events: Sequence[Event]) -> types.AccountLedger:
    """Return a ledger; its last transaction lacks version and actor."""
    (last,) = deque(list_transactions(events), maxlen=1)
    for field in ("version", "actor"):
        last.ClearField(field)
    last.book_time.FromDatetime(max(_get_time(event.message) for event in events))
    opened = get_first(events, events_pb2.AccountOpened)
    return types.AccountLedger(
        account_id=opened.account_id, version=len(events), last=last, owner_id=opened.owner_id
    )


def event_contributions(transaction: types.Transaction) -> Iterable[tuple[str, str, int]]:
    """Yield a transaction's contributions to the counters of its day, by kind and currency."""
    key = LEDGER.event_counters("day", f"{transaction.book_time.ToDatetime():%Y-%m-%d}")
    kind, money = types.Transaction.Kind.Name(transaction.kind), transaction.amount
    for part, amount in (("count", 1), *split_money(money)):
        yield key, f"{part}/{kind}/{money.currency_code}", amount


HOLD_STATES: dict[Any, str] = {
    events_pb2.HoldPlaced: "OPEN",
    events_pb2.HoldFirmed: "FIRM",
    events_pb2.HoldReleased: "RELEASED",
    events_pb2.HoldExpired: "RELEASED",
    events_pb2.HoldCaptured: "CAPTURED",
}
HOLD_END_TIMES: dict[Any, str] = {
    events_pb2.HoldReleased: "released_at",
    events_pb2.HoldExpired: "expired_at",
    events_pb2.HoldCaptured: "captured_at",
}
"""Event to its field with the end of the hold."""


def fold_hold(events: Sequence[Event]) -> types.Hold:
    placed, last = get_first(events, events_pb2.HoldPlaced), events[-1].message
    view = types.Hold(
        hold_id=placed.hold_id,
        version=len(events),
        state=types.Hold.State.Value(f"STATE_{HOLD_STATES[type(last)]}"),
        account_id=placed.account_id,
        amount=placed.amount,
        deadline=placed.deadline,
        reference=placed.reference,
        place_time=placed.placed_at,
        owner_id=placed.owner_id,
        customer_id=placed.customer_id,
        mandate_id=placed.mandate_id,
    )
    if type(last) in HOLD_END_TIMES:
        view.end_time.CopyFrom(getattr(last, HOLD_END_TIMES[type(last)]))
    if isinstance(last, events_pb2.HoldCaptured):
        view.captured.CopyFrom(last.amount)
    if isinstance(last, events_pb2.HoldReleased | events_pb2.HoldExpired):
        view.release_reason = getattr(last, "reason", "its deadline has passed")
    return view


def fold_hold_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_hold(events)
    return {
        "status": HOLD_STATES[type(events[-1].message)],
        "account_id": view.account_id,
        "amount": encode_money(view.amount),
        "reference": view.reference,
        "deadline": encode_time(view.deadline),
        "captured": encode_money(view.captured) if view.HasField("captured") else None,
        **{name: getattr(view, name) for name in ("owner_id", "customer_id", "mandate_id")},
    }


def list_mandates(events: Sequence[Event]) -> Iterable[str]:
    """Return the stream of the mandate that counts a hold: it names the hold, too."""
    mandate_id = get_first(events, events_pb2.HoldPlaced).mandate_id
    return [f"banking.mandate.{mandate_id}"] if mandate_id else []


def fold_transfer(events: Sequence[Event]) -> types.Transfer:
    first = get_first(events, events_pb2.TransferMade, events_pb2.TransferRequested)
    last = events[-1].message
    immediate = isinstance(first, events_pb2.TransferMade)  # made without a request for approval
    view = types.Transfer(
        transfer_id=first.transfer_id,
        version=len(events),
        state=types.Transfer.STATE_MADE if immediate else types.Transfer.STATE_REQUESTED,
        from_account_id=first.from_account_id,
        to_account_id=first.to_account_id,
        amount=first.amount,
        reference=first.reference,
        requested_by="" if immediate else first.requested_by,
        create_time=first.made_at if immediate else first.requested_at,
        end_time=first.made_at if immediate else None,
        owner_id=first.owner_id,
    )
    if isinstance(last, events_pb2.TransferApproved):
        view.MergeFrom(
            types.Transfer(
                state=types.Transfer.STATE_MADE, decided_by=last.approved_by, end_time=last.approved_at
            )
        )
    if isinstance(last, events_pb2.TransferDeclined):
        view.MergeFrom(
            types.Transfer(
                state=types.Transfer.STATE_DECLINED,
                decided_by=last.declined_by,
                end_time=last.declined_at,
                decline_reason=last.reason,
            )
        )
    return view


def fold_transfer_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_transfer(events)
    names = ("from_account_id", "to_account_id", "reference", "requested_by", "owner_id")
    first = events[0].message
    by = [first.requested_by] if isinstance(first, events_pb2.TransferRequested) else []
    state = types.Transfer.State.Name(view.state).removeprefix("STATE_")
    return {
        "status": state,
        "amount": encode_money(view.amount),
        "requesters": (list(first.requesters) or by) if by else [],
        **{name: getattr(view, name) for name in names},
    }


def fold_refund_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON.

    Raises:
        ValueError: the refund was paid more than once.
    """
    if len(events) != 1:
        raise ValueError("a refund is paid once")
    paid = get_first(events, events_pb2.RefundPaid)
    return {
        "account_id": paid.account_id,
        "amount": encode_money(paid.amount),
        "reference": paid.reference,
        "owner_id": paid.owner_id,
    }


AGGREGATES = (
    Aggregate(
        "banking.account",
        events=EVENTS,
        snapshot=fold_account_snapshot,
        projections=(
            ProjectionSpec(
                ACCOUNT,
                fold=fold_account,
                columns=columns("state", "owner_id", "balance", "held"),
            ),
            ProjectionSpec(
                LEDGER,
                fold=fold_ledger,
                history=list_transactions,
                event_contributions=event_contributions,
            ),
        ),
        list_counterparts=compliance.list_cases,
    ),
    Aggregate(
        "banking.hold",
        events=EVENTS,
        snapshot=fold_hold_snapshot,
        projections=(
            ProjectionSpec(
                HOLD,
                fold=fold_hold,
                indexes=list_ended(HOLD, "hold_id"),
                has_ended=has_end_time,
                columns=columns("state", "account_id", "amount", "deadline"),
            ),
        ),
        list_counterparts=list_mandates,
    ),
    Aggregate(
        "banking.transfer",
        events=EVENTS,
        snapshot=fold_transfer_snapshot,
        projections=(
            ProjectionSpec(
                TRANSFER,
                fold=fold_transfer,
                indexes=list_ended(TRANSFER, "transfer_id"),
                has_ended=has_end_time,
                columns=columns("state", "amount"),
            ),
        ),
    ),
    Aggregate("banking.refund", events=EVENTS, snapshot=fold_refund_snapshot, projections=()),
    *withdrawal.AGGREGATES,
    *compliance.AGGREGATES,
    overdraft.OVERDRAFTS,
    mandate.MANDATES,
)


def find_deadline(event: Any) -> datetime | None:
    return event.deadline.ToDatetime(UTC) if isinstance(event, events_pb2.HoldPlaced) else None


SAGAS = (SagaSpec("banking.hold_deadline", "banking.hold", deadline=find_deadline),)
