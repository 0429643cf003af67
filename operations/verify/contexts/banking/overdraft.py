"""The independent fold of requested overdraft limits."""

from collections.abc import Sequence
from typing import Any

from diptych.banking.v1 import events_pb2
from diptych.banking.v1 import types_pb2 as types

from contracts.events.banking import EVENTS
from contracts.view_layout import View
from operations.verify.events import get_first
from operations.verify.formats import columns, encode_money, has_end_time, list_ended
from operations.verify.model import Aggregate, Event, ProjectionSpec

OVERDRAFT = View.of(types.Overdraft)


def fold_overdraft(events: Sequence[Event]) -> types.Overdraft:
    requested, *decisions = (event.message for event in events)
    get_first(events, events_pb2.OverdraftRequested)
    view = types.Overdraft(
        overdraft_id=requested.overdraft_id,
        version=len(events),
        state=types.Overdraft.STATE_REQUESTED,
        account_id=requested.account_id,
        owner_id=requested.owner_id,
        overdraft_limit=requested.overdraft_limit,
        requested_by=requested.requested_by,
        create_time=requested.requested_at,
    )
    if len(decisions) > 1:
        raise ValueError("a requested limit is decided once")
    for decision in decisions:
        approved = isinstance(decision, events_pb2.OverdraftApproved)
        view.state = types.Overdraft.STATE_APPROVED if approved else types.Overdraft.STATE_DECLINED
        view.decided_by = decision.approved_by if approved else decision.declined_by
        view.end_time.CopyFrom(decision.approved_at if approved else decision.declined_at)
        view.decline_reason = "" if approved else decision.reason
    return view


def fold_overdraft_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_overdraft(events)
    return {
        "status": types.Overdraft.State.Name(view.state).removeprefix("STATE_"),
        "account_id": view.account_id,
        "owner_id": view.owner_id,
        "overdraft_limit": encode_money(view.overdraft_limit),
        "requesters": list(get_first(events, events_pb2.OverdraftRequested).requesters),
    }


OVERDRAFTS = Aggregate(
    "banking.overdraft",
    events=EVENTS,
    snapshot=fold_overdraft_snapshot,
    projections=(
        ProjectionSpec(
            OVERDRAFT,
            fold=fold_overdraft,
            indexes=list_ended(OVERDRAFT, "overdraft_id"),
            has_ended=has_end_time,
            columns=columns("state", "overdraft_limit"),
        ),
    ),
)
