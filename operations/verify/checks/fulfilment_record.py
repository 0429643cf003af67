"""The independent fold of recorded fulfilments: the last record, and the times of the earlier ones."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from diptych.fulfilment.v1 import events_pb2
from diptych.fulfilment.v1 import types_pb2 as types

from contracts.events.fulfilment import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import get_first, select
from operations.verify.formats import columns, list_entries
from operations.verify.model import Aggregate, Event, ProjectionSpec

FULFILMENT = View.of(types.Fulfilment)
COPIED = (
    *("order_id", "order_version", "state", "waiting_for", "rejection", "suspicion", "blocked_reason"),
    *("reservation_id", "hold_id"),
)


def fold_fulfilment(events: Sequence[Event]) -> types.Fulfilment:
    first = get_first(events, events_pb2.FulfilmentRecorded)
    records = select(events, events_pb2.FulfilmentRecorded)
    numbers = [record.number for record in records]
    if numbers != sorted(set(numbers)):
        raise ValueError(f"the numbers of the records do not rise: {numbers}")
    last = entered = records[-1]
    for record in reversed(records):
        if record.state != last.state:
            break
        entered = record
    view = types.Fulfilment(
        **{name: getattr(last, name) for name in COPIED},
        version=len(events),
        customer_id=next((record.customer_id for record in reversed(records) if record.customer_id), ""),
        begin_time=first.recorded_at,
        state_start_time=entered.recorded_at,
    )
    if last.blocked_reason:
        view.due_time.CopyFrom(entered.recorded_at)
    elif last.max_seconds:
        limit = entered.recorded_at.ToDatetime() + timedelta(seconds=last.max_seconds)
        view.due_time.FromDatetime(limit)
    return view


def fold_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    return {"number": events[-1].message.number}


def list_indexes(view: types.Fulfilment) -> list[tuple[str, str]]:
    """Return the entries of lists that begin with the earliest due time, and end with those without one."""
    is_due = view.HasField("due_time")
    time = view.due_time if is_due else view.begin_time
    number = (2 if is_due else 1) * 2**61 - time.ToMicroseconds()
    state = types.Fulfilment.State.Name(view.state)
    customer = [("customer", view.customer_id), ("customer_state", view.customer_id, state)]
    names = [("all",), ("state", state), *(customer if view.customer_id else ())]
    return list_entries(FULFILMENT, index_member(number, view.order_id), *names)


AGGREGATES = (
    Aggregate(
        "fulfilment.fulfilment",
        events=EVENTS,
        snapshot=fold_snapshot,
        projections=(
            ProjectionSpec(
                FULFILMENT,
                fold=fold_fulfilment,
                columns=columns("state", "order_version", "due_time"),
                indexes=list_indexes,
            ),
        ),
    ),
)
