"""The purchase order of a reorder alert: raised once for each alert of a stock that has reorder terms.

The alert names the order and what it orders, so whoever raises it again changes nothing. Who set the terms
may not approve the order: the saga that raises it is no second person. Other alerts name no order, and begin
no saga.
"""

from datetime import timedelta

from diptych.inventory.v1 import command_service_pb2 as commands
from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1.types_pb2 import PurchaseLine
from google.type.money_pb2 import Money
from msgspec import Struct
from msgspec.structs import replace

from contracts.events.inventory import EVENTS
from process_manager.saga import (
    AbortRequested,
    ActionNotPossible,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Saga,
    SagaStatus,
    Send,
    StepRejected,
    StepSucceeded,
)
from process_manager.subscriptions import Subscription

MAX_DURATION = timedelta(minutes=1)
"""Time after which a purchase order that is not raised is overdue."""
RAISE = "raise"


class Reorder(Struct, frozen=True):
    """The state of the saga. It is stored as JSON; fields added later need defaults."""

    purchase_order_id: str = ""
    supplier_id: str = ""
    warehouse_id: str = ""
    sku: str = ""
    quantity: int = 0
    currency_code: str = ""
    units: int = 0
    nanos: int = 0
    rejection: str = ""
    """The reason for which the order was rejected; empty while it is not."""
    over: str = ""
    """RAISED or ABORTED; empty before."""
    terms_set_by: tuple[str, ...] = ()


def react(reorder: Reorder, input_: Input) -> Reaction[Reorder]:
    match input_:
        case EventReceived(events.ReorderAlertRaised() as alert):
            return raise_order(begin(alert))
        case StepSucceeded():
            return Reaction(replace(reorder, over="RAISED"))
        case StepRejected(_, reason):
            return Reaction(replace(reorder, rejection=reason))
        case RetryRequested() if reorder.rejection and not reorder.over:
            return raise_order(replace(reorder, rejection=""))
        case AbortRequested() if reorder.rejection and not reorder.over:
            return Reaction(replace(reorder, over="ABORTED"))
        case AbortRequested():
            raise ActionNotPossible("cannot abort: cancel the purchase order instead")
    return Reaction(reorder)


def begin(alert: events.ReorderAlertRaised) -> Reorder:
    terms, price = alert.terms, alert.terms.unit_price
    return Reorder(
        alert.purchase_order_id,
        terms.supplier_id,
        alert.warehouse_id,
        alert.sku,
        terms.quantity,
        price.currency_code,
        price.units,
        price.nanos,
        terms_set_by=tuple(alert.terms_set_by),
    )


def raise_order(reorder: Reorder) -> Reaction[Reorder]:
    price = Money(currency_code=reorder.currency_code, units=reorder.units, nanos=reorder.nanos)
    request = commands.RaisePurchaseOrderRequest(
        purchase_order_id=reorder.purchase_order_id,
        supplier_id=reorder.supplier_id,
        warehouse_id=reorder.warehouse_id,
        lines=[PurchaseLine(sku=reorder.sku, quantity=reorder.quantity, unit_price=price)],
        requested_by=reorder.terms_set_by,
    )
    return Reaction(reorder, [Send(RAISE, request)])


def describe_status(reorder: Reorder) -> SagaStatus:
    if reorder.over:
        return SagaStatus(reorder.over, True)
    blocked = f"{RAISE} was rejected: {reorder.rejection}" if reorder.rejection else ""
    return SagaStatus("RAISING", False, MAX_DURATION, blocked_reason=blocked)


REORDERS: Saga[Reorder] = Saga(
    name="inventory.reorder",
    subscribes_to=(
        Subscription("inventory.stock", EVENTS, key={events.ReorderAlertRaised: "purchase_order_id"}),
    ),
    begins="first_event",
    requests=(commands.RaisePurchaseOrderRequest,),
    initial=Reorder(),
    react=react,
    describe_status=describe_status,
)
