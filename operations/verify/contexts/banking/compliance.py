"""The independent folds of cases and of the list of names."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from diptych.banking.v1 import events_pb2
from diptych.banking.v1 import types_pb2 as types

from contracts.events.banking import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import get_first, iterate
from operations.verify.formats import columns, list_entries
from operations.verify.model import Aggregate, Event, ProjectionSpec

CASE = View.of(types.Case)
DECISIONS: dict[Any, tuple[str, str, str]] = {
    events_pb2.CaseCleared: ("CLEARED", "cleared_by", "cleared_at"),
    events_pb2.CaseConfirmed: ("CONFIRMED", "confirmed_by", "confirmed_at"),
}
"""Event to the state after it, and its fields with the person and the time."""


def fold_case(events: Sequence[Event]) -> types.Case:
    opened, last = get_first(events, events_pb2.CaseOpened), events[-1].message
    if len(events) > 2:
        raise ValueError("a case is decided once")
    state, decided_by, end_time = DECISIONS.get(type(last), ("OPEN", "", ""))
    return types.Case(
        case_id=opened.case_id,
        version=len(events),
        state=types.Case.State.Value(f"STATE_{state}"),
        kind=opened.kind,
        account_id=opened.account_id,
        owner_id=opened.owner_id,
        amount=opened.amount if opened.HasField("amount") else None,
        counterparty_name=opened.counterparty_name,
        caused_by=opened.caused_by,
        decided_by=getattr(last, decided_by) if decided_by else "",
        reason=last.reason if decided_by else "",
        open_time=opened.opened_at,
        end_time=getattr(last, end_time) if end_time else None,
    )


def fold_case_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view, opened = fold_case(events), get_first(events, events_pb2.CaseOpened)
    return {
        "status": types.Case.State.Name(view.state).removeprefix("STATE_"),
        "kind": view.kind,
        "account_id": view.account_id,
        "causers": [*opened.causers, view.owner_id],
    }


def list_indexes(view: types.Case) -> list[tuple[str, str]]:
    member = index_member(view.open_time.ToMicroseconds(), view.case_id)
    values = {
        "account": view.account_id,
        "state": types.Case.State.Name(view.state),
        "kind": types.CaseKind.Name(view.kind),
    }
    chosen = [names for count in range(1, 4) for names in combinations(values, count)]
    indexes = [("_".join(names), *(values[name] for name in names)) for names in chosen]
    return list_entries(CASE, member, ("all",), *indexes)


def list_accounts(events: Sequence[Event]) -> list[str]:
    """Return the stream of the account, which names the case, too."""
    return [f"banking.account.{get_first(events, events_pb2.CaseOpened).account_id}"]


def list_cases(events: Sequence[Event]) -> Iterator[str]:
    """Yield the streams of an account's cases, which name the account, too."""
    return (f"banking.case.{each.case_id}" for each in iterate(events, events_pb2.AccountBlocked))


def count_cases(events: Sequence[Event]) -> int:
    """Return the number of cases that keep an account frozen.

    Raises:
        ValueError: a case is cleared that has not frozen the account.
    """
    blocking: set[str] = set()
    for message in iterate(events, events_pb2.AccountBlocked, events_pb2.AccountUnblocked):
        if isinstance(message, events_pb2.AccountBlocked):
            blocking.add(message.case_id)
        elif message.case_id in blocking:
            blocking.remove(message.case_id)
        else:
            raise ValueError(f"the case {message.case_id} has not frozen the account")
    return len(blocking)


def fold_listed_name_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    return {"is_listed": isinstance(events[-1].message, events_pb2.ListedNameAdded)}


AGGREGATES = (
    Aggregate(
        "banking.case",
        events=EVENTS,
        snapshot=fold_case_snapshot,
        projections=(
            ProjectionSpec(
                CASE,
                fold=fold_case,
                columns=columns("state", "kind", "account_id", "caused_by"),
                indexes=list_indexes,
            ),
        ),
        list_counterparts=list_accounts,
    ),
    Aggregate("banking.listed_name", events=EVENTS, snapshot=fold_listed_name_snapshot, projections=()),
)
