"""What orders and their sums should be, by code that shares nothing with the projection's handlers."""

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
FIELDS = {  # of the event -> of the view
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


def order(life: Sequence[RecordedEvent]) -> views.Order:
    """Return an order after these events, which are all of its events up to then."""
    fields: dict[str, Any] = {
        "order_id": streams.aggregate_id(life[0].stream),
        "version": len(life),
    }
    groups: dict[str, dict[str, Any]] = {}
    for recorded in life:
        event = EVENTS[recorded.type].FromString(recorded.data)
        kind = event.DESCRIPTOR.name
        if kind == "OrderPlaced":
            fields |= {name: getattr(event, name) for name in ("customer_id", "account_id", "total")}
            fields |= {"state": "STATE_PLACED", "place_time": event.placed_at}
            groups = _placed(event)
            continue
        state, taken = FIELDS[kind]
        fields |= {"state": state} if state else {}
        fields |= {there: getattr(event, here) for here, there in taken.items()}
        _change(groups, kind, event)
    first: dict[str, Any] = next(iter(groups.values()))
    named = [views.ShippingGroup(shipping_group_id=name, **group) for name, group in groups.items()]
    return views.Order(
        **fields,
        lines=[line for group in groups.values() for line in group["lines"]],
        shipping_address=first["shipping_address"],
        warehouse_id=first["warehouse_id"],
        shipping_groups=named,
    )


def _placed(event: Any) -> dict[str, dict[str, Any]]:
    one = {"main": event} if isinstance(event, v1.OrderPlaced) else {}
    several = {} if one else {group.shipping_group_id: group for group in event.groups}
    return {
        name: {
            "lines": list(group.lines),
            "shipping_address": group.personal.shipping_address,
            "warehouse_id": group.warehouse_id,
        }
        for name, group in (one | several).items()
    }


def _change(groups: dict[str, dict[str, Any]], kind: str, event: Any) -> None:
    match kind:
        case "OrderLineAdded":
            groups[event.shipping_group_id]["lines"].append(event.line)
        case "OrderLineRemoved":
            group = groups[event.shipping_group_id]
            group["lines"] = [line for line in group["lines"] if line.sku != event.sku]
        case "ShippingAddressChanged":
            groups[event.shipping_group_id]["shipping_address"] = event.personal.shipping_address


def sums(orders: Iterable[views.Order]) -> dict[str, dict[str, int]]:
    """Return the counters of the customers of these orders, by key; those of zero are not there."""
    found: dict[str, Counter[str]] = {}
    for each in orders:
        counters = found.setdefault(f"counters:ordering.order:2:{{customer/{each.customer_id}}}", Counter())
        state = views.Order.State.Name(each.state)
        counters[f"orders/{state}"] += 1
        counters[f"units/{state}/{each.total.currency_code}"] += each.total.units
        counters[f"nanos/{state}/{each.total.currency_code}"] += each.total.nanos
    return {key: {name: sum_ for name, sum_ in all_.items() if sum_} for key, all_ in found.items()}


def eventful(chance: random.Random, order_id: str, customers: int = 3) -> list[RecordedEvent]:
    """Return what may happen to an order in a long life, of either version."""
    at = Timestamp(seconds=1_767_323_045 + chance.randrange(60))
    ids: dict[str, Any] = {"order_id": order_id}
    story: list[Message] = [_story_begins(chance, ids, f"c-{chance.randrange(customers)}", at)]
    for number in range(chance.randrange(8)):
        story.append(
            chance.choice(
                [
                    v1.OrderHeld(**ids, reason=f"r-{number}", held_at=at),
                    v1.OrderApproved(**ids, approved_at=at),
                    v1.OrderLineAdded(
                        **ids,
                        shipping_group_id="main",
                        line=views.OrderLine(sku=f"s-{number}"),
                        total=_total(chance),
                        added_at=at,
                    ),
                    v1.OrderLineRemoved(**ids, shipping_group_id="main", sku="first", total=_total(chance))
                    if not any(isinstance(event, v1.OrderLineRemoved) for event in story)
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
    story += chance.choice([[], *ends, delivered[: chance.randint(1, 4)]])
    return [_recorded(version, order_id, event) for version, event in enumerate(story, 1)]


def _story_begins(chance: random.Random, ids: dict[str, Any], customer: str, at: Timestamp) -> Message:
    lines = [views.OrderLine(sku="first", quantity=1), views.OrderLine(sku="second", quantity=2)]
    rest: dict[str, Any] = {**ids, "customer_id": customer, "total": _total(chance), "placed_at": at}
    if chance.random() < 0.5:
        return v1.OrderPlaced(**rest, lines=lines, warehouse_id="w-1")
    groups = [v2.PlacedGroup(shipping_group_id=name, lines=lines) for name in ("other", "main")]
    return v2.OrderPlaced(**rest, groups=groups)


def _total(chance: random.Random) -> Money:
    """Return a total; often one of those where sums come to zero, or nanos to units."""
    return Money(
        currency_code=chance.choice(["EUR", "USD"]),
        units=chance.choice([0, 1, 10**12]),
        nanos=chance.choice([0, 999_999_999]),
    )


def _recorded(version: int, order_id: str, event: Message) -> RecordedEvent:
    name, data = event.DESCRIPTOR.full_name, event.SerializeToString()
    stream, now = f"ordering.order.{order_id}", datetime.now(UTC)
    return RecordedEvent(stream, version, name, data, now, version, {"actor": "ada"})
