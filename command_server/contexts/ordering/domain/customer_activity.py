"""The activity of a customer: the assessments of the customer's orders, one after the other.

An assessment is a function of the order and of what was recorded before the order was placed. Assessments
may therefore be asked in any order, late or twice: each order is judged as if it had been assessed at the
moment at which it was placed. An address is known once an order with it is confirmed. The address of an order
that was only placed, or that was rejected, proves nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any

from command_server.contexts.ordering.domain import contents, fraud
from command_server.contexts.ordering.domain.messages import OrderConfirmed, OrderPlaced, ShippingAddress
from command_server.contexts.ordering.domain.order import ORDER, Order
from command_server.kernel.decider import Aggregate, NotFound, Rejected, one_stream
from command_server.kernel.event_index import EarlierEvents, EventIndex, Lookup
from command_server.kernel.field_rules import Id, between, check_fields
from command_server.kernel.money import Money

MAX_ASSESSMENTS = 20
"""Assessments in the state. A repetition of an older one is recorded again, with the same result."""

# Command and event


@dataclass(frozen=True, slots=True)
class AssessOrder:
    """Assess an order as it is at a version."""

    customer_id: Id
    order_id: Id
    order_version: Annotated[int, between(1)]
    earlier_events: EarlierEvents | None = None


@dataclass(frozen=True, slots=True)
class OrderAssessed:
    """An order was assessed; the event holds what the assessment knew."""

    customer_id: str
    order_id: str
    order_version: int
    total: Money
    recent_order_ids: tuple[str, ...]
    new_address_group_ids: tuple[str, ...]
    suspicions: tuple[str, ...]
    assessed_at: datetime


# State


@dataclass(frozen=True, slots=True)
class Assessment:
    """A version of an order that was assessed."""

    order_id: str
    order_version: int


@dataclass(frozen=True, slots=True)
class CustomerActivity:
    """The latest assessments, MAX_ASSESSMENTS at most."""

    assessments: tuple[Assessment, ...] = ()


# Keys of earlier events


def find_keys(event: OrderPlaced | OrderConfirmed, order: Order) -> Sequence[str]:
    """Return the keys by which an order is found: its customer, and its addresses once it is confirmed."""
    match event:
        case OrderPlaced():
            return [derive_customer_key(order.customer_id)]
        case OrderConfirmed():
            return list(derive_address_keys(order).values())


def derive_customer_key(customer_id: str) -> str:
    return f"placed/{customer_id}"


def derive_address_keys(order: Order) -> dict[str, str]:
    """Return the keys of the addresses by shipping group; without groups whose address is sealed."""
    return {
        group.shipping_group_id: f"confirmed/{order.customer_id}/{digest(group.shipping_address)}"
        for group in order.contents.groups
        if group.shipping_address is not None
    }


def digest(address: ShippingAddress) -> str:
    """Return a digest that is equal for equal addresses, since the index stores none in clear."""
    return blake2b(json.dumps(astuple(address)).encode(), digest_size=12).hexdigest()


def list_keys(order: Order) -> Mapping[str, int]:
    """Return the keys of the earlier events that the rules need, each with the number of events."""
    customer_key = derive_customer_key(order.customer_id)
    return {customer_key: fraud.MANY_RECENT_ORDERS, **dict.fromkeys(derive_address_keys(order).values(), 1)}


ORDERS = EventIndex("ordering.orders", ORDER.stream_type, (OrderPlaced, OrderConfirmed), find_keys)
EARLIER_ORDERS = Lookup(
    ORDERS, lambda command: (ORDER.stream(command.order_id), command.order_version), list_keys
)

# Decide


def decide(command: AssessOrder, activity: CustomerActivity, now: datetime) -> Sequence[OrderAssessed]:
    """Return the assessment; none if it is one of the latest already.

    Raises:
        NotFound: the order does not have this version.
        Rejected: the order is another customer's, or a field violates its rule.
    """
    check_fields(command)
    if command.earlier_events is None:
        raise NotFound("ORDER_NOT_FOUND", order_id=command.order_id, order_version=command.order_version)
    if command.earlier_events.state.customer_id != command.customer_id:
        raise Rejected("ORDER_OF_ANOTHER_CUSTOMER", order_id=command.order_id)
    if Assessment(command.order_id, command.order_version) in activity.assessments:
        return []
    return [assess(command, command.earlier_events, now)]


def assess(command: AssessOrder, earlier: EarlierEvents, now: datetime) -> OrderAssessed:
    circumstances = find_circumstances(earlier.state, earlier)
    return OrderAssessed(
        command.customer_id,
        command.order_id,
        command.order_version,
        circumstances.total,
        tuple(circumstances.recent_order_ids),
        tuple(circumstances.new_address_group_ids),
        tuple(fraud.find_suspicions(circumstances)),
        assessed_at=now,
    )


def find_circumstances(order: Order, earlier: EarlierEvents) -> fraud.Circumstances:
    """Return the facts about an order, from the order and from the events before it."""
    placed = earlier.entries[derive_customer_key(order.customer_id)]
    address_keys = derive_address_keys(order)
    return fraud.Circumstances(
        contents.sum_lines(order.contents.lines),
        [entry.aggregate_id for entry in placed if entry.recorded_at >= earlier.recorded_at - fraud.RECENT],
        [
            group.shipping_group_id
            for group in order.contents.groups
            if not earlier.entries.get(address_keys.get(group.shipping_group_id, ""))
        ],
    )


# Evolve


def evolve(activity: CustomerActivity, event: Any) -> CustomerActivity:
    assessments = (*activity.assessments, Assessment(event.order_id, event.order_version))
    return CustomerActivity(assessments[-MAX_ASSESSMENTS:])


ACTIVITY = Aggregate("ordering.customer_activity", CustomerActivity(), evolve, (OrderAssessed,))
DECIDER = replace(one_stream(ACTIVITY, AssessOrder, key="customer_id", decide=decide), lookup=EARLIER_ORDERS)
