"""Expected orders and counters, computed by code that shares nothing with the projection's handlers."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from contracts import streams
from contracts.envelope import RecordedEvent

EVENTS: dict[str, Any] = {
    message.DESCRIPTOR.full_name: message
    for module in (v1, v2)
    for message in vars(module).values()
    if isinstance(message, type) and issubclass(message, Message)
}
FIELDS = {  # event -> the state after it, and its fields with those of the view
    "OrderHeld": ("STATE_HELD", {"held_at": "hold_time", "reason": "hold_reason"}),
    "OrderApproved": ("STATE_PLACED", {}),
    "OrderConfirmed": ("STATE_CONFIRMED", {"confirmed_at": "confirm_time"}),
    "OrderRejected": ("STATE_REJECTED", {"rejected_at": "reject_time", "reason": "reject_reason"}),
    "OrderCancelled": ("STATE_CANCELLED", {"cancelled_at": "cancel_time", "reason": "cancel_reason"}),
    "OrderShipped": (
        "STATE_SHIPPED",
        {"shipped_at": "ship_time", "carrier": "carrier", "tracking_code": "tracking_code"},
    ),
    "OrderDelivered": ("STATE_DELIVERED", {"delivered_at": "deliver_time"}),
    "OrderReturned": ("STATE_RETURNED", {"returned_at": "return_time", "reason": "return_reason"}),
    "OrderLineAdded": ("", {"total": "total"}),
    "OrderLineRemoved": ("", {"total": "total"}),
    "ShippingAddressChanged": ("", {}),
}


def order(history: Sequence[RecordedEvent]) -> views.Order:
    """Return the order after these events, which begin with its first."""
    fields: dict[str, Any] = {
        "order_id": streams.aggregate_id(history[0].stream),
        "version": len(history),
    }
    groups: dict[str, dict[str, Any]] = {}
    for recorded in history:
        event = EVENTS[recorded.type].FromString(recorded.data)
        kind = event.DESCRIPTOR.name
        if kind == "OrderPlaced":
            fields |= {name: getattr(event, name) for name in ("customer_id", "account_id", "total")}
            fields |= {"state": "STATE_PLACED", "place_time": event.placed_at}
            groups = _create_groups(event)
            continue
        state, copied = FIELDS[kind]
        fields |= {"state": state} if state else {}
        fields |= {target: getattr(event, source) for source, target in copied.items()}
        _change_groups(groups, kind, event)
    first: dict[str, Any] = next(iter(groups.values()))
    shipping_groups = [views.ShippingGroup(shipping_group_id=name, **group) for name, group in groups.items()]
    return views.Order(
        **fields,
        lines=[line for group in groups.values() for line in group["lines"]],
        shipping_address=first["shipping_address"],
        warehouse_id=first["warehouse_id"],
        shipping_groups=shipping_groups,
    )


def _create_groups(event: Any) -> dict[str, dict[str, Any]]:
    old = {"main": event} if isinstance(event, v1.OrderPlaced) else {}
    new = {} if old else {group.shipping_group_id: group for group in event.groups}
    return {
        name: {
            "lines": list(group.lines),
            "shipping_address": group.personal.shipping_address,
            "warehouse_id": group.warehouse_id,
        }
        for name, group in (old | new).items()
    }


def _change_groups(groups: dict[str, dict[str, Any]], kind: str, event: Any) -> None:
    match kind:
        case "OrderLineAdded":
            groups[event.shipping_group_id]["lines"].append(event.line)
        case "OrderLineRemoved":
            group = groups[event.shipping_group_id]
            group["lines"] = [line for line in group["lines"] if line.sku != event.sku]
        case "ShippingAddressChanged":
            groups[event.shipping_group_id]["shipping_address"] = event.personal.shipping_address


def counters(orders: Iterable[views.Order]) -> dict[str, dict[str, int]]:
    """Return the counters of the customers of these orders, by key and name; without those of zero."""
    hashes: dict[str, Counter[str]] = {}
    for order in orders:
        counters = hashes.setdefault(f"counters:ordering.order:2:{{customer/{order.customer_id}}}", Counter())
        state = views.Order.State.Name(order.state)
        counters[f"orders/{state}"] += 1
        counters[f"units/{state}/{order.total.currency_code}"] += order.total.units
        counters[f"nanos/{state}/{order.total.currency_code}"] += order.total.nanos
    return {
        key: {name: total for name, total in counters.items() if total} for key, counters in hashes.items()
    }


def random_order_events(rng: random.Random, order_id: str, customers: int = 3) -> list[RecordedEvent]:
    """Return a random run of events of an order, with events of both versions."""
    at = Timestamp(seconds=1_767_323_045 + rng.randrange(60))
    ids: dict[str, Any] = {"order_id": order_id}
    messages: list[Message] = [_random_order_placed(rng, ids, f"c-{rng.randrange(customers)}", at)]
    for number in range(rng.randrange(8)):
        messages.append(
            rng.choice(
                [
                    v1.OrderHeld(**ids, reason=f"r-{number}", held_at=at),
                    v1.OrderApproved(**ids, approved_at=at),
                    v1.OrderLineAdded(
                        **ids,
                        shipping_group_id="main",
                        line=views.OrderLine(sku=f"s-{number}"),
                        total=_random_total(rng),
                        added_at=at,
                    ),
                    v1.OrderLineRemoved(
                        **ids, shipping_group_id="main", sku="first", total=_random_total(rng)
                    )
                    if not any(isinstance(event, v1.OrderLineRemoved) for event in messages)
                    else v1.OrderHeld(**ids, held_at=at),
                ]
            )
        )
    ends: list[list[Message]] = [
        [v1.OrderCancelled(**ids, reason="enough", cancelled_at=at)],
        [v1.OrderRejected(**ids)],
    ]
    delivered: list[Message] = [
        v1.OrderConfirmed(**ids, confirmed_at=at),
        v1.OrderShipped(**ids, carrier="Hermes", tracking_code="H", shipped_at=at),
        v1.OrderDelivered(**ids, delivered_at=at),
        v1.OrderReturned(**ids, reason="broken", returned_at=at),
    ]
    messages += rng.choice([[], *ends, delivered[: rng.randint(1, 4)]])
    return [_recorded(version, order_id, event) for version, event in enumerate(messages, 1)]


def _random_order_placed(rng: random.Random, ids: dict[str, Any], customer: str, at: Timestamp) -> Message:
    lines = [views.OrderLine(sku="first", quantity=1), views.OrderLine(sku="second", quantity=2)]
    fields: dict[str, Any] = {**ids, "customer_id": customer, "total": _random_total(rng), "placed_at": at}
    if rng.random() < 0.5:
        return v1.OrderPlaced(**fields, lines=lines, warehouse_id="w-1")
    groups = [v2.PlacedGroup(shipping_group_id=name, lines=lines) for name in ("other", "main")]
    return v2.OrderPlaced(**fields, groups=groups)


def _random_total(rng: random.Random) -> Money:
    """Return a total; often zero, or one whose nanos carry over into units when summed."""
    return Money(
        currency_code=rng.choice(["EUR", "USD"]),
        units=rng.choice([0, 1, 10**12]),
        nanos=rng.choice([0, 999_999_999]),
    )


def _recorded(version: int, order_id: str, event: Message) -> RecordedEvent:
    name, data = event.DESCRIPTOR.full_name, event.SerializeToString()
    stream, now = f"ordering.order.{order_id}", datetime.now(UTC)
    return RecordedEvent(stream, version, name, data, now, version, {"actor": "ada"})
