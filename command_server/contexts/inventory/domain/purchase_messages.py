"""Commands and events of purchase orders.

The server sets the field `caller` of a command to the subject of the caller's token, and `persons` to that
and to the person on whose behalf the caller acts.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from command_server.contexts.inventory.domain.messages import DocumentNumber, Quantity, ReorderTerms, Sku
from command_server.kernel.field_rules import Id, at_least, at_most, length, matching
from command_server.kernel.money import Limit, Money

MAX_LINES = 50
"""Maximum number of lines of a purchase order, and of a delivery: each changes three streams."""
Day = Annotated[
    str,
    matching(
        "(19|20|21)[0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
        "|02-(0[1-9]|[12][0-9]))",
        "must be a day, as 2026-11-23",
    ),
]
Reason = Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class PurchaseLine:
    """A quantity of a sku at the price of one piece."""

    sku: Sku
    quantity: Quantity
    unit_price: Limit


@dataclass(frozen=True, slots=True)
class DeliveredLine:
    """A quantity of a sku that was delivered."""

    sku: Sku
    quantity: Quantity


# Commands


@dataclass(frozen=True, slots=True)
class SetReorderTerms:
    """Set or remove what each reorder alert of a stock orders."""

    sku: Sku
    warehouse_id: Id
    terms: ReorderTerms | None
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RaisePurchaseOrder:
    """Raise a purchase order, which another person may have to approve."""

    purchase_order_id: Id
    supplier_id: Id
    warehouse_id: Id
    lines: Annotated[tuple[PurchaseLine, ...], at_least(1), at_most(MAX_LINES)]
    requested_by: Annotated[tuple[Annotated[str, length(1, 2048)], ...], at_most(4)] = ()
    """Who asked for it besides the caller."""
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ApprovePurchaseOrder:
    """Approve a purchase order of another person."""

    purchase_order_id: Id
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SendToSupplier:
    """Record that a purchase order was sent, and the day of its delivery."""

    purchase_order_id: Id
    expected_on: Day


@dataclass(frozen=True, slots=True)
class ReceiveGoods:
    """Record a delivery of a purchase order, and add it to the stock."""

    purchase_order_id: Id
    delivery_note: DocumentNumber
    lines: Annotated[tuple[DeliveredLine, ...], at_least(1), at_most(MAX_LINES)]


@dataclass(frozen=True, slots=True)
class ClosePurchaseOrder:
    """Expect nothing more of a purchase order."""

    purchase_order_id: Id
    reason: Reason


@dataclass(frozen=True, slots=True)
class CancelPurchaseOrder:
    """Cancel a purchase order of which nothing has arrived."""

    purchase_order_id: Id
    reason: Reason


# Events


@dataclass(frozen=True, slots=True)
class PurchaseOrderRaised:
    """Goods were to be bought of a supplier."""

    purchase_order_id: str
    supplier_id: str
    warehouse_id: str
    lines: tuple[PurchaseLine, ...]
    total: Money
    needs_approval: bool
    raised_by: str
    raised_at: datetime
    raisers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PurchaseOrderApproved:
    """Another person approved a purchase order."""

    purchase_order_id: str
    approved_by: str
    approved_at: datetime


@dataclass(frozen=True, slots=True)
class PurchaseOrderSent:
    """A purchase order was sent to its supplier."""

    purchase_order_id: str
    expected_on: str
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class GoodsReceived:
    """Goods of a purchase order arrived in its warehouse."""

    purchase_order_id: str
    delivery_note: str
    lines: tuple[DeliveredLine, ...]
    complete: bool
    received_at: datetime


@dataclass(frozen=True, slots=True)
class PurchaseOrderClosed:
    """Nothing more is expected of a purchase order."""

    purchase_order_id: str
    reason: str
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class PurchaseOrderCancelled:
    """A purchase order of which nothing had arrived was cancelled."""

    purchase_order_id: str
    reason: str
    cancelled_at: datetime
