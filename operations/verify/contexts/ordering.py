"""The independent fold of orders: tables over plain dicts, where the projector and `evolve` have handlers.

`STEPS` maps each event to the order's next state and to the view fields that it sets. `GROUPS` maps an event
to its change of the shipping groups; lines, address and warehouse are derived from the groups.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as types
from diptych.ordering.v2 import events_pb2 as v2
from google.protobuf.any_pb2 import Any as Packed

from contracts.events.ordering import EVENTS
from contracts.view_layout import View, index_member
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
    v1.OrderApproved: ("STATE_PLACED", {}),
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
        if (kind is v2.OrderPlaced) != (event is events[0]):
            raise ValueError(f"{event.recorded.type} cannot be version {event.recorded.version}")
        state, fields = STEPS[kind]
        order.update({field: getattr(event.message, source) for field, source in fields.items()})
        order["state"] = state or order["state"]
        if kind in GROUPS:
            order["shipping_groups"] = GROUPS[kind](order["shipping_groups"], event.message)
    return order


def fold_view(events: Sequence[Event]) -> types.Order:
    order = fold(events)
    groups = order["shipping_groups"]
    return types.Order(
        **order,
        version=len(events),
        lines=[line for group in groups for line in group["lines"]],
        shipping_address=groups[0]["shipping_address"],
        warehouse_id=groups[0]["warehouse_id"],
    )


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
    }


def _line_to_json(line: Any) -> dict[str, Any]:
    price = line.unit_price
    amount = {"currency_code": price.currency_code, "units": price.units, "nanos": price.nanos}
    return {"sku": line.sku, "title": line.title, "quantity": line.quantity, "unit_price": amount}


def _address_to_json(address: Any) -> dict[str, Any] | None:
    names = ("recipient", "postal_code", "locality", "region_code")
    return address and {
        **{name: getattr(address, name) for name in names},
        "address_lines": list(address.address_lines),
    }


def columns(order: types.Order) -> dict[str, str]:
    """Return the readable fields of an order in Redis."""
    nanos = f"{order.total.nanos:09d}".rstrip("0")
    return {
        "state": types.Order.State.Name(order.state),
        "customer_id": order.customer_id,
        "total": f"{order.total.units}.{nanos:0<2} {order.total.currency_code}",
        "place_time": datetime.fromtimestamp(order.place_time.seconds, UTC).isoformat(),
    }


ORDER_VIEW = View.of(types.Order)
HISTORY_VIEW = View.of(types.OrderHistory)


def indexes(order: types.Order) -> Iterable[tuple[str, str]]:
    """Yield the index entries of an order: by customer, by state, by both, and among all orders."""
    state = types.Order.State.Name(order.state)
    member = index_member(order.place_time.ToMicroseconds(), order.order_id)
    for values in (
        ("customer", order.customer_id),
        ("state", state),
        ("customer_state", order.customer_id, state),
        ("all",),
    ):
        yield ORDER_VIEW.index(*values), member


def contributions(order: types.Order) -> Iterable[tuple[str, str, int]]:
    """Yield the contributions to a customer's summary: counts by state, sums by state and currency."""
    key = ORDER_VIEW.counters("customer", order.customer_id)
    state, total = types.Order.State.Name(order.state), order.total
    yield key, f"orders/{state}", 1
    for part, amount in (("units", total.units), ("nanos", total.nanos)):
        if amount:
            yield key, f"{part}/{state}/{total.currency_code}", amount


def history_entry(event: Event) -> types.OrderHistoryEntry:
    recorded, metadata = event.recorded, event.recorded.metadata
    packed = Packed(type_url=f"type.googleapis.com/{recorded.type}", value=recorded.data)
    entry = types.OrderHistoryEntry(
        version=recorded.version,
        event_type=recorded.type,
        event=packed,
        actor=metadata.get("actor", ""),
        command=metadata.get("command", ""),
        request_id=metadata.get("causation_id", ""),
        correlation_id=metadata.get("correlation_id", ""),
        on_behalf_of=metadata.get("on_behalf_of", ""),
    )
    entry.record_time.FromDatetime(recorded.recorded_at)
    return entry


ORDER = Aggregate(
    "ordering.order",
    events=EVENTS,
    snapshot=fold_snapshot,
    projections=(
        ProjectionSpec(
            ORDER_VIEW,
            fold=fold_view,
            columns=columns,
            indexes=indexes,
            contributions=contributions,
            contributors_index=lambda key: key.replace("counters:", "index:", 1),
            change_feeds=lambda order: [ORDER_VIEW.change_feed("customer", order.customer_id)],
        ),
        ProjectionSpec(
            HISTORY_VIEW,
            fold=lambda events: types.OrderHistory(order_id=events[0].message.order_id, version=len(events)),
            history=lambda events: [history_entry(event) for event in events],
        ),
    ),
)
AGGREGATES = (ORDER,)
