"""The independent folds of withdrawals, and of what one person pays alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from diptych.banking.v1 import events_pb2
from diptych.banking.v1 import types_pb2 as types

from contracts.events.banking import EVENTS
from contracts.money import from_nanos, to_nanos
from contracts.view_layout import View
from operations.verify.events import find_last, get_first, iterate
from operations.verify.formats import columns, encode_money, has_end_time, list_ended
from operations.verify.model import Aggregate, Event, ProjectionSpec

HOUR = 3_600
"""Seconds."""
WITHDRAWAL = View.of(types.Withdrawal)


def fold_window(payments: Iterable[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """Return the sums of the hours that may count yet, as in a snapshot.

    Args:
        payments: pairs of a time and an amount, in one currency.
    """
    counts, sums, currency, latest = Counter[int](), Counter[int](), "", 0
    for time, amount in payments:
        latest = max(latest, time.seconds // HOUR)
        counts[latest] += 1
        sums[latest] += to_nanos(amount)
        currency = amount.currency_code
    return [
        {"hour": hour, "count": count, "amount": encode_money(from_nanos(currency, sums[hour]))}
        for hour, count in sorted(counts.items())
        if latest - hour <= 24
    ]


def fold_withdrawal(events: Sequence[Event]) -> types.Withdrawal:
    requested = get_first(events, events_pb2.WithdrawalRequested)
    approved, declined = (
        find_last(events, kind) for kind in (events_pb2.WithdrawalApproved, events_pb2.WithdrawalDeclined)
    )
    if approved and declined:
        raise ValueError("a withdrawal is either approved or declined")
    state = "PAID" if approved else "DECLINED" if declined else "REQUESTED"
    return types.Withdrawal(
        withdrawal_id=requested.withdrawal_id,
        version=len(events),
        state=types.Withdrawal.State.Value(f"STATE_{state}"),
        account_id=requested.account_id,
        owner_id=requested.owner_id,
        amount=requested.amount,
        reference=requested.reference,
        requested_by=requested.requested_by,
        decided_by=approved.approved_by if approved else declined.declined_by if declined else "",
        create_time=requested.requested_at,
        end_time=approved.approved_at if approved else declined.declined_at if declined else None,
        decline_reason=declined.reason if declined else "",
    )


def fold_withdrawal_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_withdrawal(events)
    requesters = get_first(events, events_pb2.WithdrawalRequested).requesters
    return {
        "status": types.Withdrawal.State.Name(view.state).removeprefix("STATE_"),
        "account_id": view.account_id,
        "owner_id": view.owner_id,
        "amount": encode_money(view.amount),
        "reference": view.reference,
        "requesters": list(requesters),
    }


def fold_payer_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    payments = iterate(events, events_pb2.PaymentCounted)
    return {"paid": fold_window((event.counted_at, event.amount) for event in payments)}


AGGREGATES = (
    Aggregate(
        "banking.withdrawal",
        events=EVENTS,
        snapshot=fold_withdrawal_snapshot,
        projections=(
            ProjectionSpec(
                WITHDRAWAL,
                fold=fold_withdrawal,
                indexes=list_ended(WITHDRAWAL, "withdrawal_id"),
                has_ended=has_end_time,
                columns=columns("state", "amount"),
            ),
        ),
    ),
    Aggregate("banking.payer", events=EVENTS, snapshot=fold_payer_snapshot, projections=()),
)
