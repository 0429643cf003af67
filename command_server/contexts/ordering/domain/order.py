"""One order's story: what can be asked of it, what can happen to it, and which of the two follows when."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from command_server.kernel.decider import Aggregate, Exists, Missing, Rejected, members, one_stream
from command_server.kernel.money import AmountOverflow, CurrencyMismatch, Money


@dataclass(frozen=True, slots=True)
class OrderLine:
    """Some pieces of one article, at the price they were ordered at."""

    sku: str
    title: str
    quantity: int
    unit_price: Money


@dataclass(frozen=True, slots=True)
class ShippingAddress:
    """Where the goods go."""

    recipient: str
    address_lines: tuple[str, ...]
    postal_code: str
    locality: str
    region_code: str


@dataclass(frozen=True, slots=True)
class PersonalData:
    """What an order holds about a person, apart from the rest so that it can be sealed for one person."""

    subject_id: str
    shipping_address: ShippingAddress | None
    sealed: bytes = b""


# Commands: what can be asked.


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Begin an order."""

    order_id: str
    customer_id: str
    lines: tuple[OrderLine, ...]
    shipping_address: ShippingAddress
    account_id: str
    warehouse_id: str


@dataclass(frozen=True, slots=True)
class ConfirmOrder:
    """Promise that the order will be delivered."""

    order_id: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """End an order that will not be delivered."""

    order_id: str
    reason: str


Command = PlaceOrder | ConfirmOrder | CancelOrder

# Events: what can happen.


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """A customer placed the order."""

    order_id: str
    customer_id: str
    lines: tuple[OrderLine, ...]
    total: Money
    personal: PersonalData
    account_id: str
    warehouse_id: str
    placed_at: datetime


@dataclass(frozen=True, slots=True)
class OrderConfirmed:
    """The seller confirmed the order."""

    order_id: str
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """The order was cancelled."""

    order_id: str
    reason: str
    cancelled_at: datetime


Event = OrderPlaced | OrderConfirmed | OrderCancelled

# State: what the rules need to remember.


class Status(Enum):
    """Where an order is in its life."""

    NONE = "NONE"
    PLACED = "PLACED"
    CONFIRMED = "CONFIRMED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Order:
    """An order as its rules see it."""

    status: Status = Status.NONE


# Decide: which events follow from a command.


def decide(command: Command, order: Order, now: datetime) -> Sequence[Event]:
    """Return what happens to the order, or raise Rejected."""
    match command, order.status:
        case PlaceOrder(), Status.NONE:
            return [place(command, now)]
        case PlaceOrder(), _:
            raise Exists("ORDER_EXISTS", order_id=command.order_id)
        case _, Status.NONE:
            raise Missing("ORDER_NOT_FOUND", order_id=command.order_id)
        case ConfirmOrder(), Status.PLACED:
            return [OrderConfirmed(command.order_id, confirmed_at=now)]
        case ConfirmOrder(), Status.CONFIRMED:
            return []
        case ConfirmOrder(), Status.CANCELLED:
            raise Rejected("ORDER_ALREADY_CANCELLED", order_id=command.order_id)
        case CancelOrder(), Status.PLACED | Status.CONFIRMED:
            return [OrderCancelled(command.order_id, command.reason, cancelled_at=now)]
        case CancelOrder(), Status.CANCELLED:
            return []
    raise AssertionError(f"no rule for {type(command).__name__} on an order that is {order.status.name}")


def place(command: PlaceOrder, now: datetime) -> OrderPlaced:
    """Return the event of a new order, its total summed exactly."""
    return OrderPlaced(
        command.order_id,
        command.customer_id,
        command.lines,
        total(command.lines),
        PersonalData(command.customer_id, command.shipping_address),
        command.account_id,
        command.warehouse_id,
        placed_at=now,
    )


def total(lines: Sequence[OrderLine]) -> Money:
    """Return the sum over all lines; refuse what cannot be summed in one currency and 64 bits."""
    try:
        amount = lines[0].unit_price * lines[0].quantity
        for line in lines[1:]:
            amount += line.unit_price * line.quantity
    except CurrencyMismatch as error:
        raise Rejected("ORDER_CURRENCY_MIXED", currencies=error) from None
    except AmountOverflow as error:
        raise Rejected("ORDER_TOTAL_OVERFLOW", total=error) from None
    return amount


# Evolve: what an event changes.


def evolve(order: Order, event: Event) -> Order:
    """Return the order after an event."""
    match event:
        case OrderPlaced():
            return Order(Status.PLACED)
        case OrderConfirmed():
            return replace(order, status=Status.CONFIRMED)
        case OrderCancelled():
            return replace(order, status=Status.CANCELLED)


ORDER = Aggregate("ordering.order", Order(), evolve, members(Event))
DECIDER = one_stream(ORDER, Command, key="order_id", decide=decide)
