"""The independent folds of ordering: tables over plain dicts, where the projector and `evolve` have handlers.

`STEPS` maps each event to the order's next state and to the view fields that it sets. `GROUPS` maps an event
to its change of the shipping groups.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as types
from diptych.ordering.v2 import events_pb2 as v2

from contracts.address_digest import digest_address
from contracts.events.ordering import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import describe, find_last, iterate
from operations.verify.formats import (
    columns,
    encode_money,
    has_end_time,
    list_ended,
    list_entries,
    split_money,
)
from operations.verify.model import Aggregate, Event, ProjectionSpec

Groups = list[dict[str, Any]]

STEPS: dict[Any, tuple[str, dict[str, str]]] = {
    v2.OrderPlaced: (
        "STATE_PLACED",
        {
            "order_id": "order_id",
            "customer_id": "customer_id",
            "total": "total",
            "account_id": "account_id",
            "place_time": "placed_at",
        },
    ),
    v1.OrderLineAdded: ("", {"total": "total"}),
    v1.OrderLineRemoved: ("", {"total": "total"}),
    v1.ShippingAddressChanged: ("", {}),
    v1.OrderHeld: ("STATE_HELD", {"hold_time": "held_at", "hold_reason": "reason"}),
    v1.OrderApproved: ("", {}),  # it ends a hold: `fold`
    v1.OrderRejected: ("STATE_REJECTED", {"reject_time": "rejected_at", "reject_reason": "reason"}),
    v1.OrderConfirmed: ("STATE_CONFIRMED", {"confirm_time": "confirmed_at"}),
    v1.OrderCancelled: ("STATE_CANCELLED", {"cancel_time": "cancelled_at", "cancel_reason": "reason"}),
    v1.OrderShipped: (
        "STATE_SHIPPED",
        {"ship_time": "shipped_at", "carrier": "carrier", "tracking_code": "tracking_code"},
    ),
    v1.OrderDelivered: ("STATE_DELIVERED", {"deliver_time": "delivered_at"}),
    v1.OrderReturned: ("STATE_RETURNED", {"return_time": "returned_at", "return_reason": "reason"}),
}
"""Event to (state, {field of the view: field of the event}); an empty state leaves the order's state."""


END_TIMES: dict[Any, str] = {
    v1.OrderRejected: "rejected_at",
    v1.OrderCancelled: "cancelled_at",
    v1.OrderDelivered: "delivered_at",
    v1.OrderReturned: "returned_at",
}
"""The events that end an order, with the field of their time."""
ENDED = {STEPS[event][0] for event in END_TIMES}


def _create_group(group_id: str, part: Any) -> dict[str, Any]:
    group = {"shipping_group_id": group_id, "lines": list(part.lines), "warehouse_id": part.warehouse_id}
    return {**group, **_get_address(part)}


def _get_address(part: Any) -> dict[str, Any]:
    readable = part.personal.HasField("shipping_address")  # not if the personal data is sealed
    return {"shipping_address": part.personal.shipping_address if readable else None}


def _change_group(groups: Groups, event: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Groups:
    """Return the groups, with the one that the event names changed."""
    if event.shipping_group_id not in [group["shipping_group_id"] for group in groups]:
        raise ValueError(f"no shipping group {event.shipping_group_id!r}")
    return [
        {**group, **change(group)} if group["shipping_group_id"] == event.shipping_group_id else group
        for group in groups
    ]


GROUPS: dict[Any, Callable[[Groups, Any], Groups]] = {
    v2.OrderPlaced: lambda _, event: [_create_group(part.shipping_group_id, part) for part in event.groups],
    v1.OrderLineAdded: lambda groups, event: _change_group(
        groups, event, lambda group: {"lines": [*group["lines"], event.line]}
    ),
    v1.OrderLineRemoved: lambda groups, event: _change_group(
        groups, event, lambda group: {"lines": [line for line in group["lines"] if line.sku != event.sku]}
    ),
    v1.ShippingAddressChanged: lambda groups, event: _change_group(
        groups, event, lambda _: _get_address(event)
    ),
}


def fold(events: Sequence[Event]) -> dict[str, Any]:
    """Return the fields of an order after these events, with its shipping groups as dicts."""
    order: dict[str, Any] = {"shipping_groups": []}
    for event in events:
        kind = type(event.message)
        if (kind is v2.OrderPlaced) != (event.recorded.version == 1):
            raise ValueError(f"{event.recorded.type} cannot be version {event.recorded.version}")
        state, fields = STEPS[kind]
        order.update({field: getattr(event.message, source) for field, source in fields.items()})
        if kind is v1.OrderApproved and order["state"] == "STATE_HELD":
            state = "STATE_PLACED"
        order["state"] = state or order["state"]
        if kind in GROUPS:
            order["shipping_groups"] = GROUPS[kind](order["shipping_groups"], event.message)
    return order


def fold_view(events: Sequence[Event]) -> types.Order:
    return types.Order(**fold(events), version=len(events))


def fold_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    order = fold(events)
    groups = [
        {
            "shipping_group_id": group["shipping_group_id"],
            "lines": [_line_to_json(line) for line in group["lines"]],
            "shipping_address": _address_to_json(group["shipping_address"]),
        }
        for group in order["shipping_groups"]
    ]
    return {
        "status": order["state"].removeprefix("STATE_"),
        "customer_id": order["customer_id"],
        "contents": {"groups": groups},
        "approved": isinstance(find_last(events, v1.OrderApproved, *GROUPS), v1.OrderApproved),
    }


def _line_to_json(line: Any) -> dict[str, Any]:
    price = encode_money(line.unit_price)
    return {"sku": line.sku, "title": line.title, "quantity": line.quantity, "unit_price": price}


def _address_to_json(address: Any) -> dict[str, Any] | None:
    names = ("recipient", "postal_code", "locality", "region_code")
    return address and {
        **{name: getattr(address, name) for name in names},
        "address_lines": list(address.address_lines),
    }


ORDER_VIEW = View.of(types.Order)
HISTORY_VIEW = View.of(types.OrderHistory)


def indexes(order: types.Order) -> list[tuple[str, str]]:
    """Return the index entries of an order: by time, by total, and by address."""
    customer_id, state = order.customer_id, types.Order.State.Name(order.state)
    by_both = ("customer_state", customer_id, state)
    member = index_member(order.place_time.ToMicroseconds(), order.order_id)
    nanos = order.total.units * 10**9 + order.total.nanos
    skus = sorted({line.sku for group in order.shipping_groups for line in group.lines})
    by_address = ORDER_VIEW.index("customer_address", customer_id)
    known = [group for group in order.shipping_groups if group.HasField("shipping_address")]
    digests = {digest_address(group.shipping_address) for group in known}
    return [
        *list_entries(ORDER_VIEW, member, ("customer", customer_id), ("state", state), by_both, ("all",)),
        *list_entries(ORDER_VIEW, member, *(("sku", sku) for sku in skus)),
        *list_entries(ORDER_VIEW, f"{nanos:024x}{member}", ("total", order.total.currency_code)),
        *((by_address, f"{digest}:{order.order_id}") for digest in sorted(digests)),
    ]


def contributions(order: types.Order) -> Iterable[tuple[str, str, int]]:
    """Yield the contributions to a customer's summary: counts by state, sums by state and currency."""
    key = ORDER_VIEW.counters("customer", order.customer_id)
    state, total = types.Order.State.Name(order.state), order.total
    yield key, f"orders/{state}", 1
    for part, amount in split_money(total):
        yield key, f"{part}/{state}/{total.currency_code}", amount


def fold_history(events: Sequence[Event]) -> types.OrderHistory:
    """Return the history of an order, with the time of its last end."""
    last = find_last(events, *END_TIMES)
    end_time = getattr(last, END_TIMES[type(last)]) if last else None
    placed = events[0].message
    return types.OrderHistory(
        order_id=placed.order_id, customer_id=placed.customer_id, version=len(events), end_time=end_time
    )


def history_entry(event: Event) -> types.OrderHistoryEntry:
    return types.OrderHistoryEntry(**describe(event, *types.OrderHistoryEntry.DESCRIPTOR.fields_by_name))


ORDER = Aggregate(
    "ordering.order",
    events=EVENTS,
    snapshot=fold_snapshot,
    projections=(
        ProjectionSpec(
            ORDER_VIEW,
            fold=fold_view,
            columns=columns("state", "customer_id", "total", "place_time"),
            indexes=indexes,
            contributions=contributions,
            # Each order has an address, and the index of addresses keeps archived orders.
            contributors_index=lambda key: key.replace("counters:", "index:", 1).replace(
                "{customer/", "{customer_address/", 1
            ),
            has_ended=lambda order: types.Order.State.Name(order.state) in ENDED,
            kept_indexes=("customer_address",),
            change_feeds=lambda order: [ORDER_VIEW.change_feed("customer", order.customer_id)],
        ),
        ProjectionSpec(
            HISTORY_VIEW,
            fold=fold_history,
            indexes=list_ended(HISTORY_VIEW, "order_id"),
            has_ended=has_end_time,
            history=lambda events: map(history_entry, events),
        ),
    ),
)


MAX_ASSESSMENTS = 20
"""Assessments in the state of a customer's activity: the latest."""


def fold_activity(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state of a customer's activity, as JSON."""
    names = ("order_id", "order_version")
    latest: deque[dict[str, Any]] = deque(maxlen=MAX_ASSESSMENTS)
    latest.extend(
        {name: getattr(message, name) for name in names} for message in iterate(events, v1.OrderAssessed)
    )
    return {"assessments": list(latest)}


ACTIVITY = Aggregate("ordering.customer_activity", events=EVENTS, snapshot=fold_activity, projections=())
AGGREGATES = (ORDER, ACTIVITY)
