"""What a fulfilment knows, and how it comes to know more: from events, answers, times and operators."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2

from process_manager.saga import (
    AbortRequested,
    ActionNotPossible,
    EventReceived,
    Input,
    RetryRequested,
    StepRejected,
    StepSucceeded,
    TimerFired,
)
from process_manager.sagas.fulfilment import fraud

NONE, OPEN, FIRM, GONE, DONE = "NONE", "OPEN", "FIRM", "GONE", "DONE"
"""Where a reservation or a hold is: not there, until a deadline, for good, let go, committed or captured."""


@dataclass(frozen=True)
class Line:
    """What is to be reserved."""

    shipping_group_id: str
    sku: str
    warehouse_id: str
    quantity: int


@dataclass(frozen=True)
class Fulfilment:
    """What is known of an order and of what was done for it."""

    order_id: str = ""
    customer_id: str = ""
    account_id: str = ""
    lines: tuple[Line, ...] = ()
    warehouses: tuple[tuple[str, str], ...] = ()
    """Shipping group to warehouse."""
    addresses: tuple[str, ...] = ()
    currency_code: str = ""
    units: int = 0
    nanos: int = 0
    placed_at: datetime | None = None
    order: str = NONE
    """PLACED, HELD, CONFIRMED, SHIPPED, RETURNED, REJECTED or CANCELLED, as far as it was heard."""
    version: int = 0
    round: int = 1
    """Raised when what is ordered has changed after it was reserved."""
    assessed: bool = False
    suspicion: str = ""
    approved: bool = False
    stock: str = NONE
    money: str = NONE
    changed: bool = False
    """Whether what is ordered has changed since it was reserved or held."""
    refused: str = ""
    """Why the order cannot be fulfilled."""
    under_way: tuple[str, ...] = ()
    blind: bool = False
    """Whether the order has moved on in a way that was not heard yet."""
    asked_at: int = 0
    """The order's version when it was last asked for something."""
    refunded: bool = False
    restocked: int = 0
    """How many lines of a returned order are in stock again."""
    blocked_reason: str = ""

    @property
    def pieces(self) -> dict[tuple[str, str], int]:
        """How many pieces are wanted of each sku at each warehouse."""
        pieces: dict[tuple[str, str], int] = {}
        for line in self.lines:
            place = (line.sku, line.warehouse_id)
            pieces[place] = pieces.get(place, 0) + line.quantity
        return pieces

    @property
    def costs(self) -> bool:
        """Whether there is anything to pay."""
        return bool(self.units or self.nanos)

    @property
    def done(self) -> bool:
        """Whether the goods have left and the money is taken."""
        return self.stock == DONE and (self.money == DONE or not self.costs)


def learn(known: Fulfilment, received: Input) -> Fulfilment:
    """Return what is known once something was told."""
    match received:
        case EventReceived(event, version):
            return replace(heard(known, event), version=version, blind=False)
        case StepSucceeded(step, response):
            kind, _, _ = step.partition("-")
            return answered(_without(known, step), kind, response)
        case StepRejected(step, reason):
            kind, _, _ = step.partition("-")
            return refused(_without(known, step), kind, reason)
        case TimerFired():
            why = {"PLACED": "FULFILMENT_TIMED_OUT", "HELD": "REVIEW_TIMED_OUT"}.get(known.order, "")
            return replace(known, refused=known.refused or why)
        case AbortRequested(reason):
            if known.order not in ("PLACED", "HELD"):
                raise ActionNotPossible(f"an order that is {known.order} cannot be aborted, cancel it")
            return replace(known, refused=known.refused or reason, blocked_reason="")
        case RetryRequested():
            return replace(known, blocked_reason="")


def _without(known: Fulfilment, step: str) -> Fulfilment:
    return replace(known, under_way=tuple(other for other in known.under_way if other != step))


def heard(known: Fulfilment, event: Any) -> Fulfilment:
    """Return what is known after an event of the order."""
    match event:
        case v2.OrderPlaced():
            return placed(event)
        case v1.OrderLineAdded():
            group = event.shipping_group_id
            line = Line(group, event.line.sku, dict(known.warehouses)[group], event.line.quantity)
            return edited(known, event, (*known.lines, line))
        case v1.OrderLineRemoved():
            gone = (event.shipping_group_id, event.sku)
            kept = (line for line in known.lines if (line.shipping_group_id, line.sku) != gone)
            return edited(known, event, tuple(kept))
        case v1.ShippingAddressChanged():
            return replace(known, addresses=(*known.addresses, fraud.digest(event.personal.shipping_address)))
        case v1.OrderApproved():
            return replace(known, order="PLACED", approved=True)
        case v1.OrderDelivered():
            return known
        case _:
            return replace(known, order=event.DESCRIPTOR.name.removeprefix("Order").upper())


def placed(event: v2.OrderPlaced) -> Fulfilment:
    """Return what is known of an order at first."""
    lines = [
        Line(group.shipping_group_id, line.sku, group.warehouse_id, line.quantity)
        for group in event.groups
        for line in group.lines
    ]
    order = Fulfilment(
        event.order_id,
        event.customer_id,
        event.account_id,
        warehouses=tuple((group.shipping_group_id, group.warehouse_id) for group in event.groups),
        addresses=tuple(fraud.digest(group.personal.shipping_address) for group in event.groups),
        placed_at=event.placed_at.ToDatetime(UTC),
        order="PLACED",
    )
    return replace(edited(order, event, tuple(lines)), changed=False)


def edited(known: Fulfilment, event: Any, lines: tuple[Line, ...]) -> Fulfilment:
    """Return what is known once what is ordered has changed."""
    total = event.total
    amount = {"currency_code": total.currency_code, "units": total.units, "nanos": total.nanos}
    return replace(known, lines=lines, changed=True, **amount)


CHANGES: dict[str, dict[str, Any]] = {
    "reserve": {"stock": OPEN},
    "firm_stock": {"stock": FIRM},
    "release_stock": {"stock": GONE},
    "commit_stock": {"stock": DONE},
    "hold_money": {"money": OPEN},
    "firm_money": {"money": FIRM},
    "release_money": {"money": GONE},
    "capture_money": {"money": DONE},
    "refund": {"refunded": True},
    "reject": {"order": "REJECTED"},
}
"""What is known once a step is done."""
ABOUT_ORDER = ("hold_order", "confirm", "reject")
"""Steps that are refused where the order has moved on, which will be heard, or was heard meanwhile."""
MAY_FAIL = ("reserve", "hold_money", "firm_stock", "firm_money")
"""Steps that are refused where an order cannot be fulfilled."""


def answered(known: Fulfilment, kind: str, response: Any) -> Fulfilment:
    """Return what is known once a step is done."""
    match kind:
        case "assess":
            earlier = [order for order in response.orders if order.order_id != known.order_id]
            return replace(known, assessed=True, suspicion="; ".join(suspicions(known, earlier)))
        case "hold_order" | "confirm":
            order = {"hold_order": "HELD", "confirm": "CONFIRMED"}[kind]
            return replace(known, order=order) if known.order == "PLACED" else known
        case "restock":
            return replace(known, restocked=known.restocked + 1)
        case _:
            return replace(known, **CHANGES[kind])


def suspicions(known: Fulfilment, earlier: Sequence[Any]) -> list[str]:
    """Return what is odd about the order."""
    assert known.placed_at is not None  # noqa: S101 - an order that is assessed was placed
    facts = fraud.Facts(known.units, known.currency_code, known.placed_at, known.addresses)
    return fraud.suspicions(facts, earlier)


def refused(known: Fulfilment, kind: str, reason: str) -> Fulfilment:
    """Return what is known once a step was refused."""
    if kind == "assess":
        return replace(known, assessed=True, suspicion=f"it could not be assessed: {reason}")
    if kind in ABOUT_ORDER:
        return replace(known, blind=known.version == known.asked_at)
    if kind in MAY_FAIL:
        return replace(known, refused=known.refused or reason)
    if (kind, reason) == ("restock", "PRODUCT_DISCONTINUED"):  # it is left for a person to count
        return replace(known, restocked=known.restocked + 1)
    return replace(known, blocked_reason=f"{kind} was refused: {reason}")
