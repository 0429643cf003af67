"""The independent fold of mandates: their use is a sum here, where rules and projector copy it."""

from collections.abc import Iterator, Sequence
from typing import Any

from diptych.banking.v1 import events_pb2
from diptych.banking.v1 import types_pb2 as types

from contracts.events.banking import EVENTS
from contracts.money import from_nanos, to_nanos
from contracts.view_layout import View, index_member
from operations.verify.events import find_last, get_first, iterate
from operations.verify.formats import columns, encode_money, encode_time, list_entries
from operations.verify.model import Aggregate, Event, ProjectionSpec

MANDATE = View.of(types.Mandate)


def sum_used(events: Sequence[Event]) -> int:
    """Return what is held or was paid out, in nanos.

    Raises:
        ValueError: an event carries another sum, a hold counts twice, or frees more than it has used.
    """
    left: dict[str, int] = {}
    used = 0
    for message in iterate(events, events_pb2.MandateUsed, events_pb2.MandateFreed):
        amount = to_nanos(message.amount)
        if isinstance(message, events_pb2.MandateUsed):
            if message.hold_id in left:
                raise ValueError(f"the hold {message.hold_id} is counted twice")
            left[message.hold_id] = amount
            used += amount
        else:
            if left.get(message.hold_id, 0) < amount:
                raise ValueError(f"the hold {message.hold_id} frees more than it has used")
            left[message.hold_id] = 0
            used -= amount
        if to_nanos(message.used) != used:
            raise ValueError(f"after the hold {message.hold_id} {used} nanos are used, not {message.used}")
    return used


def fold_mandate(events: Sequence[Event]) -> types.Mandate:
    first = get_first(events, events_pb2.MandateGranted)
    latest = find_last(events, events_pb2.MandateGranted)
    change = find_last(events, events_pb2.MandateGranted, events_pb2.MandateRevoked)
    revoked = find_last(events, events_pb2.MandateRevoked)
    state = "REVOKED" if isinstance(change, events_pb2.MandateRevoked) else "GRANTED"
    return types.Mandate(
        mandate_id=first.mandate_id,
        version=len(events),
        state=types.Mandate.State.Value(f"STATE_{state}"),
        account_id=first.account_id,
        owner_id=first.owner_id,
        customer_id=first.customer_id,
        order_limit=latest.order_limit,
        total_limit=latest.total_limit,
        used=from_nanos(first.total_limit.currency_code, sum_used(events)),
        until=latest.until,
        create_time=first.granted_at,
        revoke_time=revoked and revoked.revoked_at,
    )


def fold_mandate_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view = fold_mandate(events)
    return {
        "status": types.Mandate.State.Name(view.state).removeprefix("STATE_"),
        **{name: getattr(view, name) for name in ("account_id", "customer_id", "owner_id")},
        **{name: encode_money(getattr(view, name)) for name in ("order_limit", "total_limit", "used")},
        "until": encode_time(view.until),
    }


def list_indexes(view: types.Mandate) -> list[tuple[str, str]]:
    member = index_member(view.create_time.ToMicroseconds(), view.mandate_id)
    owner, account = view.owner_id, view.account_id
    by_owner, by_account = ("owner", owner), ("account", account)
    return list_entries(MANDATE, member, ("all",), by_owner, by_account, ("owner_account", owner, account))


def list_holds(events: Sequence[Event]) -> Iterator[str]:
    """Yield the streams of the holds that it counts: each names it, too."""
    return (f"banking.hold.{used.hold_id}" for used in iterate(events, events_pb2.MandateUsed))


MANDATES = Aggregate(
    "banking.mandate",
    events=EVENTS,
    snapshot=fold_mandate_snapshot,
    projections=(
        ProjectionSpec(
            MANDATE,
            fold=fold_mandate,
            columns=columns("state", "account_id", "customer_id", "used"),
            indexes=list_indexes,
        ),
    ),
    list_counterparts=list_holds,
)
