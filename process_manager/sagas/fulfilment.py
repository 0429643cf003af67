"""The fulfilment of an order: looked at, stock reserved, money held, confirmed; then shipped and paid.

The saga is a plan over facts. What it is told changes what it knows (`learn`); what to do next follows from
what it knows alone (`plan`), one thing after the other, and nothing while something is under way. So it does
not matter in which order events, answers and times come. Before shipping whatever fails undoes, in reverse,
what was done; from then on steps are tried until they succeed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from diptych.banking.v1 import command_service_pb2 as banking
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1.types_pb2 import ReservationLine
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v2 import events_pb2 as v2
from google.type.money_pb2 import Money

from process_manager.saga import (
    Abort,
    Answered,
    Heard,
    Next,
    Refused,
    Retry,
    Saga,
    Send,
    Standing,
    Timeout,
    Timer,
    Told,
)
from process_manager.sagas import fraud

PATIENCE = timedelta(minutes=15)
"""How long an order may wait to be confirmed; a review not counted."""
REVIEW = timedelta(days=3)
"""How long a review may take."""
RESERVED_FOR = timedelta(hours=1)
"""The deadline of what is reserved and held; it must outlast PATIENCE."""
EARLIER = 100
"""How many of the customer's orders are looked at."""
DEADLINE = "deadline"
IDS = UUID("7be3c5e2-55b6-5b8e-9c0d-0f6a3b1d7a44")
"""The namespace of the ids of reservations and holds, which are made of the order's and the round."""

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
    trouble: str = ""


def react(before: Fulfilment, told: Told) -> Next[Fulfilment]:
    """Return what is known then, and what is to be done."""
    known = learn(before, told)
    after, wanted = plan(known, told.at)
    steps = tuple(send.step for send in wanted)
    asked = replace(after, under_way=(*after.under_way, *steps), asked_at=after.version)
    return Next(asked if wanted else after, wanted, _timers(before.order, after.order, told.at))


def _timers(before: str, after: str, at: datetime) -> Sequence[Timer]:
    if before == after:
        return ()
    patience = {"PLACED": PATIENCE, "HELD": REVIEW}.get(after)
    return [Timer(DEADLINE, None if patience is None else at + patience)]


# What is known.


def learn(known: Fulfilment, told: Told) -> Fulfilment:
    """Return what is known once something was told."""
    match told:
        case Heard(event, version):
            return replace(heard(known, event), version=version, blind=False)
        case Answered(step, response):
            kind, _, _ = step.partition("-")
            return answered(_without(known, step), kind, response)
        case Refused(step, reason):
            kind, _, _ = step.partition("-")
            return refused(_without(known, step), kind, reason)
        case Timeout():
            why = {"PLACED": "FULFILMENT_TIMED_OUT", "HELD": "REVIEW_TIMED_OUT"}.get(known.order, "")
            return replace(known, refused=known.refused or why)
        case Abort(reason):
            if known.order not in ("PLACED", "HELD"):
                raise ValueError(f"an order that is {known.order} cannot be aborted, cancel it")
            return replace(known, refused=known.refused or reason, trouble="")
        case Retry():
            return replace(known, trouble="")


def _without(known: Fulfilment, step: str) -> Fulfilment:
    return replace(known, under_way=tuple(other for other in known.under_way if other != step))


def heard(known: Fulfilment, event: Any) -> Fulfilment:
    """Return what is known after an event of the order."""
    match event:
        case v1.OrderPlaced():
            return placed(event, [("main", event)])
        case v2.OrderPlaced():
            return placed(event, [(group.shipping_group_id, group) for group in event.groups])
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


def placed(event: Any, groups: Sequence[tuple[str, Any]]) -> Fulfilment:
    """Return what is known of an order at first."""
    lines = [
        Line(group_id, line.sku, group.warehouse_id, line.quantity)
        for group_id, group in groups
        for line in group.lines
    ]
    order = Fulfilment(
        event.order_id,
        event.customer_id,
        event.account_id,
        warehouses=tuple((group_id, group.warehouse_id) for group_id, group in groups),
        addresses=tuple(fraud.digest(group.personal.shipping_address) for _, group in groups),
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
    return replace(known, trouble=f"{kind} was refused: {reason}")


# What is to be done.


def plan(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Return what to do next, and what is known of the order then (a new round, perhaps)."""
    if known.under_way or known.blind or known.trouble:
        return known, ()
    match known.order:
        case "CANCELLED" | "REJECTED":
            return known, undo(known)
        case "HELD":
            return known, undo(known) or (reject(known) if known.refused else ())
        case "PLACED":
            return before_confirmation(known, at)
        case "CONFIRMED" | "SHIPPED" | "RETURNED":
            return after_confirmation(known, at)
    return known, ()


def before_confirmation(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Bring a placed order to its confirmation, or to its end."""
    if known.refused:
        return known, undo(known) or reject(known)
    if not known.assessed:
        return known, [
            Send("assess", queries.ListOrdersRequest(customer_id=known.customer_id, page_size=EARLIER))
        ]
    if known.suspicion and not known.approved:
        request = ordering.HoldOrderRequest(order_id=known.order_id, reason=known.suspicion[:500])
        return known, [Send(f"hold_order-{known.version}", request)]
    known, steps = acquire(known, at)
    confirm = ordering.ConfirmOrderRequest(order_id=known.order_id, expected_version=known.version)
    return known, steps or [Send(f"confirm-{known.version}", confirm)]


def after_confirmation(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Let goods and money go once the order is shipped, and come back once it is returned."""
    if DONE not in (known.stock, known.money):
        if known.refused:  # somebody else has confirmed what cannot be fulfilled
            return replace(known, trouble=f"confirmed, but {known.refused}", refused=""), ()
        known, steps = acquire(known, at)
        if steps or known.order == "CONFIRMED":
            return known, steps
    steps = [send for send in (commit(known), capture(known)) if send is not None]
    if not steps and known.order == "RETURNED":
        steps = take_back(known)
    return known, steps


def acquire(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Reserve the stock and hold the money of what is ordered now, and make both firm."""
    stale = known.changed and (known.stock, known.money) != (NONE, NONE)
    if stale or GONE in (known.stock, known.money):
        if steps := undo(known):
            return known, steps
        known = replace(known, round=known.round + 1, stock=NONE, money=NONE)
    known = replace(known, changed=False)
    if known.stock == NONE:
        return known, [reserve(known, at)]
    if known.money == NONE and _costs(known):
        return known, [hold_money(known, at)]
    steps = []
    if known.stock == OPEN:
        firm = inventory.FirmReservationRequest(reservation_id=reservation_id(known))
        steps.append(Send(f"firm_stock-{known.round}", firm))
    if known.money == OPEN:
        steps.append(Send(f"firm_money-{known.round}", banking.FirmHoldRequest(hold_id=hold_id(known))))
    return known, steps


def undo(known: Fulfilment) -> Sequence[Send]:
    """Undo the last of what was done, if anything was."""
    why = (known.refused or f"the order is {known.order.lower()}")[:500]
    if known.money in (OPEN, FIRM):
        release = banking.ReleaseHoldRequest(hold_id=hold_id(known), reason=why)
        return [Send(f"release_money-{known.round}", release)]
    if known.stock in (OPEN, FIRM):
        back = inventory.ReleaseReservationRequest(reservation_id=reservation_id(known), reason=why)
        return [Send(f"release_stock-{known.round}", back)]
    return ()


def reject(known: Fulfilment) -> Sequence[Send]:
    """Tell the order why it ends."""
    request = ordering.RejectOrderRequest(order_id=known.order_id, reason=known.refused[:500])
    return [Send(f"reject-{known.version}", request)]


def reserve(known: Fulfilment, at: datetime) -> Send:
    """Reserve all lines, those of the same sku and warehouse together."""
    request = inventory.ReserveStockRequest(reservation_id=reservation_id(known))
    for (sku, warehouse_id), quantity in _pieces(known).items():
        request.lines.append(ReservationLine(sku=sku, warehouse_id=warehouse_id, quantity=quantity))
    request.deadline.FromDatetime(at + RESERVED_FOR)
    return Send(f"reserve-{known.round}", request)


def hold_money(known: Fulfilment, at: datetime) -> Send:
    """Hold what the order comes to."""
    request = banking.PlaceHoldRequest(
        hold_id=hold_id(known),
        account_id=known.account_id,
        amount=_amount(known),
        reference=f"order {known.order_id}",
    )
    request.deadline.FromDatetime(at + RESERVED_FOR)
    return Send(f"hold_money-{known.round}", request)


def commit(known: Fulfilment) -> Send | None:
    """Let the goods leave."""
    if known.stock == DONE:
        return None
    request = inventory.CommitReservationRequest(reservation_id=reservation_id(known))
    return Send("commit_stock", request)


def capture(known: Fulfilment) -> Send | None:
    """Take the money."""
    if known.money == DONE or not _costs(known):
        return None
    return Send("capture_money", banking.CaptureHoldRequest(hold_id=hold_id(known)))


def take_back(known: Fulfilment) -> list[Send]:
    """Give the money of a returned order back, and put its goods into stock, a line after the other."""
    if _costs(known) and not known.refunded:
        reference = f"refund of order {known.order_id}"
        request = banking.DepositRequest(
            account_id=known.account_id, amount=_amount(known), reference=reference
        )
        return [Send("refund", request)]
    pieces = list(_pieces(known).items())
    if known.restocked == len(pieces):
        return []
    (sku, warehouse_id), quantity = pieces[known.restocked]
    back = inventory.ReceiveStockRequest(
        sku=sku,
        warehouse_id=warehouse_id,
        quantity=quantity,
        purchase_order="return",
        delivery_note=known.order_id,
    )
    return [Send(f"restock-{known.restocked + 1}", back)]


def reservation_id(known: Fulfilment) -> str:
    """Return the id of the reservation of this round."""
    return str(uuid5(IDS, f"reservation/{known.order_id}/{known.round}"))


def hold_id(known: Fulfilment) -> str:
    """Return the id of the hold of this round."""
    return str(uuid5(IDS, f"hold/{known.order_id}/{known.round}"))


def _pieces(known: Fulfilment) -> dict[tuple[str, str], int]:
    pieces: dict[tuple[str, str], int] = {}
    for line in known.lines:
        place = (line.sku, line.warehouse_id)
        pieces[place] = pieces.get(place, 0) + line.quantity
    return pieces


def _amount(known: Fulfilment) -> Money:
    return Money(currency_code=known.currency_code, units=known.units, nanos=known.nanos)


def _costs(known: Fulfilment) -> bool:
    return bool(known.units or known.nanos)


# Where it is.


def standing(known: Fulfilment) -> Standing:
    """Return where a fulfilment is."""
    trouble = known.trouble
    done = known.stock == DONE and (known.money == DONE or not _costs(known))
    match known.order:
        case "CANCELLED" | "REJECTED":
            ended = not known.under_way and not undo(known)
            return Standing(known.order if ended else "UNWINDING", ended, trouble=trouble)
        case "HELD":
            return Standing("IN_REVIEW", False, "its approval or rejection", trouble)
        case "PLACED":
            return Standing("UNWINDING" if known.refused else "PREPARING", False, trouble=trouble)
        case "CONFIRMED":
            return Standing("CONFIRMED", False, "its shipping", trouble)
        case "RETURNED":
            ended = done and (known.refunded or not _costs(known))
            ended = ended and known.restocked == len(_pieces(known))
            return Standing("RETURNED" if ended else "TAKING_BACK", ended, trouble=trouble)
    return Standing("FULFILLED" if done else "SHIPPED", done, trouble=trouble)


FULFILMENT: Saga[Fulfilment] = Saga(
    "fulfilment.fulfilment", "ordering.order", (v1, v2), Fulfilment(), react, standing
)
