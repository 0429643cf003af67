"""Banking, folded once more: a balance is a sum of amounts here, where rules and projector take what events
tell of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from diptych.banking.v1 import events_pb2 as happened
from diptych.banking.v1 import types_pb2 as types
from google.type.money_pb2 import Money

from contracts.view_layout import View
from operations.verify.model import Aggregate, Event, Reading

NANOS = 10**9
SUMS: dict[Any, tuple[int, int]] = {
    happened.MoneyDeposited: (1, 0),
    happened.MoneyWithdrawn: (-1, 0),
    happened.TransferSent: (-1, 0),
    happened.TransferReceived: (1, 0),
    happened.MoneyHeld: (0, 1),
    happened.HeldMoneyReleased: (0, -1),
    happened.HeldMoneyCaptured: (-1, -1),
}
"""How often an event's amount is added to the balance and to what is held."""

ACCOUNT, LEDGER = View.of(types.Account), View.of(types.AccountLedger)
HOLD, TRANSFER = View.of(types.Hold), View.of(types.Transfer)


def _exact(money: Any) -> Fraction:
    return Fraction(money.units) + Fraction(money.nanos, NANOS)


def _money(currency_code: str, amount: Fraction) -> Money:
    units = int(amount)  # towards zero, so the rest has the same sign
    return Money(currency_code=currency_code, units=units, nanos=int((amount - units) * NANOS))


def _plain(money: Any) -> dict[str, Any]:
    return {"currency_code": money.currency_code, "units": money.units, "nanos": money.nanos}


def _text(money: Any) -> str:
    """Return an amount as it stands in Redis."""
    sign = "-" if _exact(money) < 0 else ""
    fraction = f"{abs(money.nanos):09d}".rstrip("0")
    return f"{sign}{abs(money.units)}.{fraction:0<2} {money.currency_code}"


def _first(events: Sequence[Event], *kinds: Any) -> Any:
    if not isinstance(events[0].message, kinds):
        raise ValueError(f"{events[0].recorded.type} is version 1")
    return events[0].message


def _last(events: Sequence[Event], *kinds: Any) -> Any:
    found = [event.message for event in events if isinstance(event.message, kinds)]
    return found[-1] if found else None


def levels(events: Sequence[Event]) -> Iterator[tuple[Fraction, Fraction]]:
    """Yield the balance and what is held after each event; what events tell of them must be that."""
    limit = _exact(_first(events, happened.AccountOpened).overdraft_limit)
    balance = held = Fraction(0)
    for event in events:
        message = event.message
        if type(message) not in SUMS:
            yield balance, held
            continue
        to_balance, to_held = SUMS[type(message)]
        balance += to_balance * _exact(message.amount)
        held += to_held * _exact(message.amount)
        if isinstance(message, happened.HeldMoneyCaptured):
            held -= _exact(message.released)
        if (_exact(message.balance), _exact(message.held)) != (balance, held):
            raise ValueError(f"{event.recorded.type} of version {event.recorded.version} tells other sums")
        if held < 0 or balance - held < -limit:
            raise ValueError("more is held, or has left, than there was")
        yield balance, held


def sums(events: Sequence[Event]) -> tuple[Fraction, Fraction]:
    """Return the balance and what is held."""
    return list(levels(events))[-1]


FROZEN = {False: "STATE_FROZEN", True: "STATE_FROZEN_BOTH_WAYS"}


def _frozen(events: Sequence[Event]) -> Any:
    """Return the last freezing, if it was not undone."""
    last = _last(events, happened.AccountFrozen, happened.AccountUnfrozen)
    return last if isinstance(last, happened.AccountFrozen) else None


def account(events: Sequence[Event]) -> types.Account:
    """Return an account as it is read."""
    began, (balance, held) = _first(events, happened.AccountOpened), sums(events)
    frozen, closed = _frozen(events), _last(events, happened.AccountClosed)
    currency, limit = began.currency_code, began.overdraft_limit
    state = FROZEN[frozen.incoming_too] if frozen else "STATE_OPEN"
    freezing = _last(events, happened.AccountFrozen)
    return types.Account(
        account_id=began.account_id,
        version=len(events),
        state=types.Account.State.Value("STATE_CLOSED" if closed else state),
        owner_id=began.owner_id,
        currency_code=currency,
        balance=_money(currency, balance),
        held=_money(currency, held),
        available=_money(currency, balance - held + _exact(limit)),
        overdraft_limit=limit,
        daily_withdrawal_limit=began.daily_withdrawal_limit
        if began.HasField("daily_withdrawal_limit")
        else None,
        open_time=began.opened_at,
        close_time=closed and closed.closed_at,
        freeze_reason=freezing.reason if freezing else "",
    )


def account_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return an account as the rules remember it."""
    view, began = account(events), events[0].message
    leaving = [e for e in events if isinstance(e.message, happened.MoneyWithdrawn | happened.TransferSent)]
    days = [_day(event.message) for event in leaving]
    today = [_exact(e.message.amount) for e, day in zip(leaving, days, strict=True) if day == days[-1]]
    frozen = _frozen(events)
    limited = began.HasField("daily_withdrawal_limit")
    return {
        "account_id": view.account_id,
        "owner_id": view.owner_id,
        "status": "CLOSED" if view.state == types.Account.STATE_CLOSED else "OPEN",
        "frozen": "NOT"
        if frozen is None
        else "TAKES_NOTHING_EITHER"
        if frozen.incoming_too
        else "GIVES_NOTHING",
        "balance": _plain(view.balance),
        "held": _plain(view.held),
        "overdraft_limit": _plain(view.overdraft_limit),
        "daily_limit": _plain(view.daily_withdrawal_limit) if limited else None,
        "left_on": days[-1] if days else "",
        "left": _plain(_money(view.currency_code, sum(today, Fraction(0)))),
    }


def _day(message: Any) -> str:
    at = message.withdrawn_at if isinstance(message, happened.MoneyWithdrawn) else message.sent_at
    return str(at.ToDatetime(UTC).date().isoformat())


LINES: dict[Any, tuple[str, str, str, str]] = {
    happened.AccountOpened: ("OPENED", "", "", ""),
    happened.MoneyDeposited: ("DEPOSITED", "reference", "", ""),
    happened.MoneyWithdrawn: ("WITHDRAWN", "reference", "", ""),
    happened.TransferSent: ("SENT", "reference", "to_account_id", "transfer_id"),
    happened.TransferReceived: ("RECEIVED", "reference", "from_account_id", "transfer_id"),
    happened.MoneyHeld: ("HELD", "", "", "hold_id"),
    happened.HeldMoneyReleased: ("RELEASED", "", "", "hold_id"),
    happened.HeldMoneyCaptured: ("CAPTURED", "", "", "hold_id"),
    happened.AccountFrozen: ("FROZEN", "reason", "", ""),
    happened.AccountUnfrozen: ("UNFROZEN", "", "", ""),
    happened.AccountClosed: ("CLOSED", "", "", ""),
}
"""What a statement calls an event, and which fields tell what for, with whom, and to what it belongs."""


def statement(events: Sequence[Event]) -> list[types.Transaction]:
    """Return the lines of an account's statement, with sums of their own."""
    currency = _first(events, happened.AccountOpened).currency_code if events else ""
    paid_in = Fraction(0)
    lines: list[types.Transaction] = []
    for event, (balance, held) in zip(events, levels(events) if events else (), strict=True):
        message, recorded = event.message, event.recorded
        name, reference, counterpart, related = LINES[type(message)]
        amount = _exact(message.amount) if type(message) in SUMS else Fraction(0)
        paid_in += amount if name in ("DEPOSITED", "RECEIVED") else 0
        line = types.Transaction(
            version=recorded.version,
            kind=types.Transaction.Kind.Value(f"KIND_{name}"),
            amount=_money(currency, amount),
            balance=_money(currency, balance),
            held=_money(currency, held),
            paid_in=_money(currency, paid_in),
            reference=getattr(message, reference) if reference else "",
            counterpart_account_id=getattr(message, counterpart) if counterpart else "",
            related_id=getattr(message, related) if related else "",
            actor=recorded.metadata.get("actor", ""),
        )
        line.book_time.FromDatetime(recorded.recorded_at)
        lines.append(line)
    return lines


def ledger(events: Sequence[Event]) -> types.AccountLedger:
    """Return what a ledger says beside its lines: the last of them, without when and by whom."""
    last = statement(events)[-1]
    for field in ("version", "book_time", "actor"):
        last.ClearField(field)
    account_id = _first(events, happened.AccountOpened).account_id
    return types.AccountLedger(account_id=account_id, version=len(events), last=last)


def tallies(line: types.Transaction) -> Iterable[tuple[str, str, int]]:
    """A line counts on its day, by kind and currency."""
    key = LEDGER.event_counters("day", f"{line.book_time.ToDatetime():%Y-%m-%d}")
    what = f"{types.Transaction.Kind.Name(line.kind)}/{line.amount.currency_code}"
    for part, amount in (("count", 1), ("units", line.amount.units), ("nanos", line.amount.nanos)):
        if amount:
            yield key, f"{part}/{what}", amount


HOLD_STATES: dict[Any, str] = {
    happened.HoldPlaced: "OPEN",
    happened.HoldFirmed: "FIRM",
    happened.HoldReleased: "RELEASED",
    happened.HoldExpired: "RELEASED",
    happened.HoldCaptured: "CAPTURED",
}
HOLD_ENDS: dict[Any, str] = {
    happened.HoldReleased: "released_at",
    happened.HoldExpired: "expired_at",
    happened.HoldCaptured: "captured_at",
}


def hold(events: Sequence[Event]) -> types.Hold:
    """Return a hold as it is read."""
    began, last = _first(events, happened.HoldPlaced), events[-1].message
    view = types.Hold(
        hold_id=began.hold_id,
        version=len(events),
        state=types.Hold.State.Value(f"STATE_{HOLD_STATES[type(last)]}"),
        account_id=began.account_id,
        amount=began.amount,
        deadline=began.deadline,
        reference=began.reference,
        place_time=began.placed_at,
    )
    if type(last) in HOLD_ENDS:
        view.end_time.CopyFrom(getattr(last, HOLD_ENDS[type(last)]))
    if isinstance(last, happened.HoldCaptured):
        view.captured.CopyFrom(last.amount)
    if isinstance(last, happened.HoldReleased | happened.HoldExpired):
        view.release_reason = getattr(last, "reason", "its deadline has passed")
    return view


def hold_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return a hold as the rules remember it."""
    view = hold(events)
    return {
        "status": HOLD_STATES[type(events[-1].message)],
        "account_id": view.account_id,
        "amount": _plain(view.amount),
        "reference": view.reference,
        "deadline": view.deadline.ToDatetime(UTC).isoformat().replace("+00:00", "Z"),
        "captured": _plain(view.captured) if view.HasField("captured") else None,
    }


def transfer(events: Sequence[Event]) -> types.Transfer:
    """Return a transfer as it is read."""
    began = _first(events, happened.TransferMade, happened.TransferRequested)
    last = events[-1].message
    alone = isinstance(began, happened.TransferMade)
    view = types.Transfer(
        transfer_id=began.transfer_id,
        version=len(events),
        state=types.Transfer.STATE_MADE if alone else types.Transfer.STATE_REQUESTED,
        from_account_id=began.from_account_id,
        to_account_id=began.to_account_id,
        amount=began.amount,
        reference=began.reference,
        requested_by="" if alone else began.requested_by,
        create_time=began.made_at if alone else began.requested_at,
        end_time=began.made_at if alone else None,
    )
    if isinstance(last, happened.TransferApproved):
        view.MergeFrom(
            types.Transfer(
                state=types.Transfer.STATE_MADE, decided_by=last.approved_by, end_time=last.approved_at
            )
        )
    if isinstance(last, happened.TransferDeclined):
        ended = types.Transfer(
            state=types.Transfer.STATE_DECLINED, decided_by=last.declined_by, end_time=last.declined_at
        )
        ended.decline_reason = last.reason
        view.MergeFrom(ended)
    return view


def transfer_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return a transfer as the rules remember it."""
    view = transfer(events)
    names = ("from_account_id", "to_account_id", "reference", "requested_by")
    state = types.Transfer.State.Name(view.state).removeprefix("STATE_")
    return {"status": state, "amount": _plain(view.amount), **{name: getattr(view, name) for name in names}}


AGGREGATES = (
    Aggregate(
        "banking.account",
        events=(happened,),
        snapshot=account_snapshot,
        readings=(
            Reading(
                ACCOUNT,
                fold=account,
                columns=lambda view: {
                    "state": types.Account.State.Name(view.state),
                    "owner_id": view.owner_id,
                    "balance": _text(view.balance),
                    "held": _text(view.held),
                },
            ),
            Reading(LEDGER, fold=ledger, log=statement, tallies=tallies),
        ),
    ),
    Aggregate(
        "banking.hold",
        events=(happened,),
        snapshot=hold_snapshot,
        readings=(
            Reading(
                HOLD,
                fold=hold,
                columns=lambda view: {
                    "state": types.Hold.State.Name(view.state),
                    "account_id": view.account_id,
                    "amount": _text(view.amount),
                    "deadline": datetime.fromtimestamp(view.deadline.seconds, UTC).isoformat(),
                },
            ),
        ),
    ),
    Aggregate(
        "banking.transfer",
        events=(happened,),
        snapshot=transfer_snapshot,
        readings=(
            Reading(
                TRANSFER,
                fold=transfer,
                columns=lambda view: {
                    "state": types.Transfer.State.Name(view.state),
                    "amount": _text(view.amount),
                },
            ),
        ),
    ),
)
