"""The independent folds of the ledger."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from google.type.money_pb2 import Money

from contracts.view_layout import View, index_member
from operations.verify.events import describe
from operations.verify.formats import has_end_time, list_ended
from operations.verify.model import Aggregate, Event, ProjectionSpec, SagaSpec
from tests.support.ledger.events import EVENTS
from tests.support.ledger.stubs import types as views

CHEQUE, HISTORY, ACCOUNT = (View.of(each) for each in (views.Cheque, views.ChequeHistory, views.Account))
STEPS: dict[str, tuple[str, dict[str, str]]] = {
    "ChequeEndorsed": ("ENDORSED", {"endorse_time": "endorsed_at"}),
    "ChequeCashed": ("CASHED", {"cash_time": "cashed_at"}),
    "ChequeVoided": ("VOIDED", {"void_time": "voided_at", "void_reason": "reason"}),
}
"""Event to status and {field of the view: field of the event}."""


def _name(event: Event) -> str:
    return str(event.message.DESCRIPTOR.name)


def _list_endorsers(events: Sequence[Event]) -> list[str]:
    return [event.message.endorser for event in events if _name(event) == "ChequeEndorsed"]


def _get_status(events: Sequence[Event]) -> str:
    if [event for event in events if _name(event) == "ChequeWritten"] != [events[0]]:
        raise ValueError("a cheque is written once, first of all")
    return "WRITTEN" if len(events) == 1 else STEPS[_name(events[-1])][0]


def fold_cheque(events: Sequence[Event]) -> Any:
    status, written, *later = _get_status(events), *(event.message for event in events)
    fields: dict[str, Any] = {}
    for message in later:
        copied = STEPS[message.DESCRIPTOR.name][1]
        fields |= {target: getattr(message, source) for target, source in copied.items()}
    units, cents = written.amount // 100, written.amount % 100
    return views.Cheque(
        cheque_id=written.cheque_id,
        version=len(events),
        state=f"STATE_{status}",
        account_id=written.account_id,
        amount=Money(currency_code=written.currency_code, units=units, nanos=cents * 10**7),
        writer=written.writer,
        write_time=written.written_at,
        endorsers=_list_endorsers(events),
        **fields,
    )


def fold_cheque_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    return {
        "status": _get_status(events),
        "account_id": events[0].message.account_id,
        "amount": events[0].message.amount,
        "endorsements": [{"endorser": endorser} for endorser in _list_endorsers(events)],
    }


def columns(cheque: Any) -> dict[str, str]:
    return {
        "state": views.Cheque.State.Name(cheque.state),
        "account_id": cheque.account_id,
        "amount": f"{cheque.amount.units}.{cheque.amount.nanos // 10**7:02} {cheque.amount.currency_code}",
        "write_time": datetime.fromtimestamp(cheque.write_time.seconds, UTC).isoformat(),
    }


def indexes(cheque: Any) -> Iterator[tuple[str, str]]:
    member = index_member(cheque.write_time.ToMicroseconds(), cheque.cheque_id)
    account, state = cheque.account_id, views.Cheque.State.Name(cheque.state)
    for key in (("account", account), ("state", state), ("account_state", account, state), ("all",)):
        yield CHEQUE.index(*key), member


def contributions(cheque: Any) -> Iterator[tuple[str, str, int]]:
    key, state = CHEQUE.counters("account", cheque.account_id), views.Cheque.State.Name(cheque.state)
    yield key, f"cheques/{state}", 1
    if cents := round(cheque.amount.units * 100 + cheque.amount.nanos / 10**7):
        yield key, f"cents/{state}/{cheque.amount.currency_code}", cents


def fold_history(events: Sequence[Event]) -> Any:
    """Return the history of a cheque, with the time at which it was cashed or voided."""
    end = STEPS.get(_name(events[-1]), ("", {}))[1]
    times = [
        getattr(events[-1].message, field) for field in end.values() if field in ("cashed_at", "voided_at")
    ]
    return views.ChequeHistory(
        cheque_id=events[0].message.cheque_id, version=len(events), end_time=times[0] if times else None
    )


def history_entry(event: Event) -> Any:
    return views.ChequeHistoryEntry(**describe(event, *views.ChequeHistoryEntry.DESCRIPTOR.fields_by_name))


def list_balances(events: Sequence[Event]) -> list[int]:
    return list(accumulate(event.message.amount for event in events))


def list_entries(events: Sequence[Event]) -> list[Any]:
    entries = []
    for event, balance in zip(events, list_balances(events), strict=True):
        amount = event.message.amount
        kind = "KIND_RECEIVED" if amount >= 0 else "KIND_PAID"
        common = describe(event, "version", "record_time")
        entries.append(views.Entry(**common, kind=kind, amount=abs(amount), balance=balance))
    return entries


def day_contributions(entry: Any) -> Iterator[tuple[str, str, int]]:
    day = datetime.fromtimestamp(entry.record_time.seconds, UTC).date()
    key, kind = ACCOUNT.event_counters("day", f"{day}"), views.Entry.Kind.Name(entry.kind)
    yield key, f"count/{kind}", 1
    if entry.amount:
        yield key, f"cents/{kind}", entry.amount


AGGREGATES = (
    Aggregate(
        "ledger.cheque",
        events=EVENTS,
        snapshot=fold_cheque_snapshot,
        projections=(
            ProjectionSpec(
                CHEQUE,
                fold=fold_cheque,
                columns=columns,
                indexes=indexes,
                contributions=contributions,
                contributors_index=lambda key: key.replace("counters:", "index:", 1),
                has_ended=lambda cheque: (
                    views.Cheque.State.Name(cheque.state) in ("STATE_CASHED", "STATE_VOIDED")
                ),
                kept_indexes=("account",),
                change_feeds=lambda cheque: [CHEQUE.change_feed("account", cheque.account_id)],
            ),
            ProjectionSpec(
                HISTORY,
                fold=fold_history,
                indexes=list_ended(HISTORY, "cheque_id"),
                has_ended=has_end_time,
                history=lambda events: [history_entry(event) for event in events],
            ),
        ),
    ),
    Aggregate(
        "ledger.account",
        events=EVENTS,
        snapshot=lambda events: {"balance": list_balances(events)[-1]},
        projections=(
            ProjectionSpec(
                ACCOUNT,
                fold=lambda events: views.Account(
                    account_id=events[0].message.account_id,
                    version=len(events),
                    balance=list_balances(events)[-1],
                ),
                history=list_entries,
                event_contributions=day_contributions,
            ),
        ),
    ),
)
SAGAS = (SagaSpec("ledger.collection", "ledger.cheque"),)
