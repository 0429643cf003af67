"""The order aggregate: which commands each status allows, and the events that follow.

docs/ordering.md has the state diagram; a test compares it with these rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from command_server.contexts.ordering.domain import contents
from command_server.contexts.ordering.domain.contents import Contents, Group
from command_server.contexts.ordering.domain.messages import (
    AddOrderLine,
    ApproveOrder,
    CancelOrder,
    ChangeShippingAddress,
    Command,
    ConfirmOrder,
    DeliverOrder,
    Edit,
    Event,
    HoldOrder,
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderHeld,
    OrderLineAdded,
    OrderLineRemoved,
    OrderPlaced,
    OrderRejected,
    OrderReturned,
    OrderShipped,
    PersonalData,
    PlacedGroup,
    PlaceOrder,
    RejectOrder,
    RemoveOrderLine,
    ReturnOrder,
    ShipOrder,
    ShippingAddressChanged,
    ShippingGroup,
)
from command_server.contexts.ordering.domain.quotes import check_prices
from command_server.kernel.decider import Aggregate, AlreadyExists, NotFound, Rejected, members, one_stream
from command_server.kernel.field_rules import check_fields

# State


class Status(Enum):
    """Statuses of an order; NONE before it is placed."""

    NONE = "NONE"
    PLACED = "PLACED"
    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    RETURNED = "RETURNED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Order:
    """The state of an order, as far as the rules need it."""

    status: Status = Status.NONE
    customer_id: str = ""
    contents: Contents = contents.EMPTY
    approved: bool = False
    """Whether a person has approved it as it is."""


# Decide


def decide(command: Command, order: Order, now: datetime) -> Sequence[Event]:
    """Return the events that follow from a command, none if its target status is reached already.

    Raises:
        Rejected: the status or another rule does not allow the command.
    """
    check_fields(command)
    match command, order.status:
        case PlaceOrder(), Status.NONE:
            return [place(command, now)]
        case PlaceOrder(), _:
            raise AlreadyExists("ORDER_EXISTS", order_id=command.order_id)
        case _, Status.NONE:
            raise NotFound("ORDER_NOT_FOUND", order_id=command.order_id)
        case AddOrderLine() | RemoveOrderLine() | ChangeShippingAddress(), Status.PLACED:
            return edit(command, order, now)
        case HoldOrder(), Status.PLACED:
            return [OrderHeld(command.order_id, command.reason, held_at=now)]
        case ApproveOrder(), Status.HELD:
            return [OrderApproved(command.order_id, approved_at=now)]
        case ApproveOrder(), Status.CONFIRMED | Status.SHIPPED | Status.DELIVERED | Status.RETURNED:
            return [] if order.approved else [OrderApproved(command.order_id, approved_at=now)]
        case RejectOrder(), Status.PLACED | Status.HELD:
            return [OrderRejected(command.order_id, command.reason, rejected_at=now)]
        case ConfirmOrder(), Status.PLACED:
            return [OrderConfirmed(command.order_id, confirmed_at=now)]
        case ShipOrder(), Status.CONFIRMED:
            return [OrderShipped(command.order_id, command.carrier, command.tracking_code, shipped_at=now)]
        case DeliverOrder(), Status.SHIPPED:
            return [OrderDelivered(command.order_id, delivered_at=now)]
        case ReturnOrder(), Status.DELIVERED:
            return [OrderReturned(command.order_id, command.reason, now, order.customer_id)]
        case CancelOrder(), Status.PLACED | Status.HELD | Status.CONFIRMED:
            return [OrderCancelled(command.order_id, command.reason, now, order.customer_id)]
        case _, status if status is TARGET_STATUS.get(type(command)):
            return []
    raise Rejected(find_reason(command, order.status), order_id=command.order_id)


TARGET_STATUS = {
    HoldOrder: Status.HELD,
    ApproveOrder: Status.PLACED,
    RejectOrder: Status.REJECTED,
    ConfirmOrder: Status.CONFIRMED,
    ShipOrder: Status.SHIPPED,
    DeliverOrder: Status.DELIVERED,
    ReturnOrder: Status.RETURNED,
    CancelOrder: Status.CANCELLED,
}
"""The status that each command leads to. A command whose target status is reached already has no effect."""
PROGRESS = (Status.PLACED, Status.CONFIRMED, Status.SHIPPED, Status.DELIVERED)
REQUIRED_STATUS = {ShipOrder: Status.CONFIRMED, DeliverOrder: Status.SHIPPED, ReturnOrder: Status.DELIVERED}
"""The status that an order must have reached in PROGRESS for a command."""


def find_reason(command: Command, status: Status) -> str:
    """Return the reason for which a status does not allow a command."""
    required = REQUIRED_STATUS.get(type(command))
    if status is Status.HELD:
        return "ORDER_HELD"
    if required and status in PROGRESS[: PROGRESS.index(required)]:
        return f"ORDER_NOT_{required.name}"
    return f"ORDER_ALREADY_{status.name}"


def place(command: PlaceOrder, now: datetime) -> OrderPlaced:
    groups = command.shipping_groups
    lines = [line for group in groups for line in group.lines]
    contents.check_unique_group_ids([group.shipping_group_id for group in groups])
    for group in groups:
        contents.check_unique_skus(group.lines)
    contents.check_line_count(lines)
    total = contents.sum_lines(lines)
    check_prices(command, lines, command.customer_id, now)
    return OrderPlaced(
        command.order_id,
        command.customer_id,
        tuple(to_placed_group(group, command.customer_id) for group in groups),
        total,
        command.account_id,
        placed_at=now,
    )


def to_placed_group(group: ShippingGroup, customer_id: str) -> PlacedGroup:
    """Return the event's form of a group, with the address as the customer's personal data."""
    personal = PersonalData(customer_id, group.shipping_address)
    return PlacedGroup(group.shipping_group_id, group.lines, group.warehouse_id, personal)


def edit(command: Edit, order: Order, now: datetime) -> Sequence[Event]:
    """Return the event of an edit, or none if the edit changes nothing."""
    group = order.contents.get_group(command.shipping_group_id)
    match command:
        case AddOrderLine():
            return add_line(command, group, order, now)
        case RemoveOrderLine():
            return [remove_line(command, group, order.contents, now)]
        case ChangeShippingAddress(shipping_address=address):
            if address == group.shipping_address:
                return []
            personal = PersonalData(order.customer_id, address)
            return [
                ShippingAddressChanged(command.order_id, group.shipping_group_id, personal, changed_at=now)
            ]


def add_line(command: AddOrderLine, group: Group, order: Order, now: datetime) -> Sequence[OrderLineAdded]:
    """Return the event of an added line, or none if the group has an identical line."""
    if existing := group.find_line(command.line.sku):
        if existing == command.line:
            return []
        raise AlreadyExists("ORDER_LINE_EXISTS", sku=command.line.sku)
    after = order.contents.with_line(group.shipping_group_id, command.line)
    contents.check_line_count(after.lines)
    total = contents.sum_lines(after.lines)
    check_prices(command, [command.line], order.customer_id, now)
    return [OrderLineAdded(command.order_id, group.shipping_group_id, command.line, total, added_at=now)]


def remove_line(command: RemoveOrderLine, group: Group, before: Contents, now: datetime) -> OrderLineRemoved:
    """Return the event of a removed line; the last line of a group cannot be removed."""
    if group.find_line(command.sku) is None:
        raise NotFound("ORDER_LINE_NOT_FOUND", sku=command.sku)
    if len(group.lines) == 1:
        raise Rejected("ORDER_LINE_LAST", sku=command.sku)
    after = before.without_line(group.shipping_group_id, command.sku)
    total = contents.sum_lines(after.lines)
    return OrderLineRemoved(command.order_id, group.shipping_group_id, command.sku, total, removed_at=now)


# Evolve


def evolve(order: Order, event: Event) -> Order:
    before = order.contents
    match event:
        case OrderPlaced():
            return Order(
                Status.PLACED, event.customer_id, Contents(tuple(map(Group.from_event, event.groups)))
            )
        case OrderLineAdded():
            return edited(order, before.with_line(event.shipping_group_id, event.line))
        case OrderLineRemoved():
            return edited(order, before.without_line(event.shipping_group_id, event.sku))
        case ShippingAddressChanged():
            address = event.personal.shipping_address
            return edited(order, before.with_address(event.shipping_group_id, address))
        case OrderHeld():
            return replace(order, status=Status.HELD)
        case OrderApproved():
            status = Status.PLACED if order.status is Status.HELD else order.status
            return replace(order, status=status, approved=True)
        case OrderRejected():
            return replace(order, status=Status.REJECTED)
        case OrderConfirmed():
            return replace(order, status=Status.CONFIRMED)
        case OrderShipped():
            return replace(order, status=Status.SHIPPED)
        case OrderDelivered():
            return replace(order, status=Status.DELIVERED)
        case OrderReturned():
            return replace(order, status=Status.RETURNED)
        case OrderCancelled():
            return replace(order, status=Status.CANCELLED)


def edited(order: Order, contents: Contents) -> Order:
    """Return the order with other contents, which nobody has approved."""
    return replace(order, contents=contents, approved=False)


ORDER = Aggregate(
    "ordering.order",
    Order(),
    evolve,
    members(Event),
    subjects=lambda order, _: (order.customer_id,),
    owner="customer_id",
)
DECIDER = one_stream(ORDER, Command, key="order_id", decide=decide)
