"""The facts known about a fulfilment, and how each input changes them.

How it works:

- The events of the order alone tell its status. An answer to a command on the order comes before its event,
  after it, or after later events; so it tells only the version that the order has, and `plan` decides nothing
  before the event of that version was received.
- The assessment of an order comes as an event of its customer's activity. It is of one version of the order,
  so an edit makes another one necessary. So does an approval: it is of the order as it was approved.
- A time that is up is a reason to reject the order as it was: a review, an approval or a confirmation ends
  the reason. The rejection is sent for that one version of the order, so it never overtakes such a change.
"""

from enum import StrEnum
from typing import Any

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2
from msgspec import Struct
from msgspec.structs import replace

from process_manager.saga import (
    AbortRequested,
    ActionNotPossible,
    EventReceived,
    Input,
    RetryRequested,
    RowTakenOver,
    StepRejected,
    StepSucceeded,
    TimerFired,
)


class ClaimState(StrEnum):
    """The state of the order's claim on stock (a reservation) or on money (a hold)."""

    NONE = "NONE"
    """No reservation or hold was made."""
    OPEN = "OPEN"
    """It expires at its deadline."""
    FIRM = "FIRM"
    """It has no deadline."""
    RELEASED = "RELEASED"
    SETTLED = "SETTLED"
    """The reservation is committed, or the hold captured; neither can be undone."""


class Line(Struct, frozen=True):
    """An order line, with the warehouse that ships it."""

    shipping_group_id: str
    sku: str
    warehouse_id: str
    quantity: int


class Fulfilment(Struct, frozen=True):
    """The state of the saga: facts about the order, and about the steps taken for it.

    It is a `Struct` because each input replaces fields several times: with a dataclass of so many fields that
    was a third of the time of a reaction.
    """

    order_id: str = ""
    customer_id: str = ""
    account_id: str = ""
    lines: tuple[Line, ...] = ()
    warehouses: tuple[tuple[str, str], ...] = ()
    """Pairs of shipping group id and warehouse id."""
    currency_code: str = ""
    units: int = 0
    nanos: int = 0
    order_status: str = "NONE"
    """PLACED, HELD, CONFIRMED, SHIPPED, RETURNED, REJECTED or CANCELLED, as known from events."""
    order_version: int = 0
    """The version of the order's last event received."""
    contents_version: int = 0
    """The version at which the order's lines or addresses last changed; 0 if an earlier release knew it."""
    generation: int = 1
    """Number of the current reservation and hold, part of their ids; replacing them increments it."""
    assessed: bool = False
    assessed_version: int = 0
    """The latest version of the order that was assessed; 0 if an earlier release has assessed it."""
    asked_version: int = 0
    """The latest version of the order for which an assessment was asked."""
    suspicion: str = ""
    """For people: why the order must be reviewed; empty if it need not be."""
    approved: bool = False
    """Whether a person has approved the order as it is."""
    aborted: bool = False
    """Whether an operator has ended a shipped or returned order for which nothing has left."""
    stock: ClaimState = ClaimState.NONE
    money: ClaimState = ClaimState.NONE
    lines_changed: bool = False
    """Whether the order's lines have changed since stock was reserved or money held for them."""
    claim_lost: bool = False
    """Whether a claim has expired or was released before it was firm."""
    rejection_reason: str = ""
    """Why the order cannot be fulfilled; empty if it can."""
    pending_steps: tuple[str, ...] = ()
    """The steps without an answer."""
    awaits_event: bool = False
    """Whether the next event of the order is awaited. Only an earlier release sets it."""
    awaited_version: int = 0
    """The version of the order that its last answer told; the event of that version may not be here yet."""
    sent_at_version: int = 0
    """`order_version` when steps were last sent."""
    refunded: bool = False
    record_number: int = 0
    """The number of the last record of the progress; 0 if none was sent."""
    recorded: str = ""
    """Digest of that record."""
    record_format: int = 0
    """`RECORD_FORMAT` of the release that has sent it."""
    restocked: int = 0
    """Number of entries of `quantities` that are back in stock after the order was returned."""
    blocked_reason: str = ""

    @property
    def quantities(self) -> dict[tuple[str, str], int]:
        """The ordered quantities by sku and warehouse id."""
        quantities: dict[tuple[str, str], int] = {}
        for line in self.lines:
            key = (line.sku, line.warehouse_id)
            quantities[key] = quantities.get(key, 0) + line.quantity
        return quantities

    @property
    def is_behind(self) -> bool:
        """Whether an event of the order is missing that an answer or an assessment names."""
        return self.awaits_event or self.order_version < self.reported_version

    @property
    def reported_version(self) -> int:
        """The latest version of the order that an answer or an assessment names."""
        return max(self.awaited_version, self.assessed_version)

    @property
    def is_assessed(self) -> bool:
        """Whether the order as it is was assessed."""
        return self.assessed and self.assessed_version >= self.contents_version

    @property
    def lacks_approval(self) -> bool:
        """Whether the order as it is was found suspicious, and no person has approved it."""
        return self.is_assessed and bool(self.suspicion) and not self.approved

    @property
    def is_cleared(self) -> bool:
        """Whether stock and money may be acquired for the order as it is."""
        return self.is_assessed and not self.lacks_approval

    @property
    def version_to_assess(self) -> int:
        return self.contents_version or self.order_version

    @property
    def awaits_assessment(self) -> bool:
        """Whether an assessment of the order as it is was asked for and has not arrived."""
        return not self.is_assessed and self.asked_version >= self.version_to_assess

    @property
    def has_cost(self) -> bool:
        return bool(self.units or self.nanos)

    @property
    def is_claimed(self) -> bool:
        """Whether stock and money are firm for the present lines."""
        money_is_firm = self.money == ClaimState.FIRM or not self.has_cost
        return self.stock == ClaimState.FIRM and money_is_firm and not self.lines_changed

    @property
    def has_left(self) -> bool:
        """Whether goods have left stock, or money is captured."""
        return ClaimState.SETTLED in (self.stock, self.money)

    @property
    def settled(self) -> bool:
        """Whether the goods have left stock and the money is captured."""
        return self.stock == ClaimState.SETTLED and (self.money == ClaimState.SETTLED or not self.has_cost)


TIMEOUTS = {"PLACED": "FULFILMENT_TIMED_OUT", "HELD": "REVIEW_TIMED_OUT"}
"""The reasons to reject an order that was in a status for too long."""
CONFIRMED_BUT = "confirmed, but "
"""How the blocked reason of an order begins that a person has confirmed and that cannot be fulfilled."""


def apply_input(fulfilment: Fulfilment, input_: Input) -> Fulfilment:
    match input_:
        case EventReceived(v1.OrderAssessed() as event):
            return apply_assessment(fulfilment, event.order_version, "; ".join(event.suspicions))
        case EventReceived(event, version):
            changed = apply_event(fulfilment, event)
            if isinstance(event, CONTENTS_EVENTS):
                changed = replace(changed, contents_version=version, approved=False)
            if changed.order_status != fulfilment.order_status:
                changed = _end_reasons(changed)
            return replace(changed, order_version=version, awaits_event=False)
        case StepSucceeded(step):
            fulfilment = _remove_pending(fulfilment, step)
            return apply_success(fulfilment, _get_step_kind(step), input_.version)
        case StepRejected(step, reason):
            fulfilment = _remove_pending(fulfilment, step)
            return apply_rejection(fulfilment, _get_step_kind(step), reason, input_.version)
        case TimerFired():
            return _set_rejection_reason(fulfilment, TIMEOUTS.get(fulfilment.order_status, ""))
        case AbortRequested(reason):
            return abort(fulfilment, reason)
        case RowTakenOver():
            return fulfilment
        case RetryRequested() if fulfilment.pending_steps:  # their answers decide what comes next
            return replace(fulfilment, blocked_reason="")
        case RetryRequested():
            fulfilment = replace(fulfilment, blocked_reason="", awaits_event=False, awaited_version=0)
            return replace(fulfilment, asked_version=fulfilment.assessed_version)


def abort(fulfilment: Fulfilment, reason: str) -> Fulfilment:
    """Set an operator's reason to reject the order, or to give up one that is shipped and blocked.

    Raises:
        ActionNotPossible: the order is confirmed or has ended, or may have been confirmed meanwhile.
    """
    if fulfilment.order_status in ("SHIPPED", "RETURNED") and _may_be_given_up(fulfilment):
        return replace(fulfilment, aborted=True, rejection_reason=reason, blocked_reason="")
    if fulfilment.order_status not in TIMEOUTS:
        instead = ", cancel it instead" if fulfilment.order_status == "CONFIRMED" else ""
        raise ActionNotPossible(f"cannot abort: the order is {fulfilment.order_status}{instead}")
    if any(_get_step_kind(step) == "confirm" for step in fulfilment.pending_steps):
        raise ActionNotPossible("cannot abort: the order is being confirmed, cancel it once it is")
    if fulfilment.order_version < fulfilment.awaited_version:
        version = fulfilment.awaited_version
        raise ActionNotPossible(f"cannot abort: version {version} of the order has not arrived yet")
    return replace(_set_rejection_reason(fulfilment, reason), blocked_reason="")


def _may_be_given_up(fulfilment: Fulfilment) -> bool:
    """Return whether nothing has left for a blocked order, nor is leaving."""
    leaving = any(
        _get_step_kind(step) in ("commit_stock", "capture_money") for step in fulfilment.pending_steps
    )
    is_blocked = bool(fulfilment.blocked_reason) or not fulfilment.is_cleared
    return is_blocked and not (fulfilment.has_left or leaving or fulfilment.aborted)


def is_timed_out(fulfilment: Fulfilment) -> bool:
    """Whether the order is to be rejected because a time is up."""
    return fulfilment.rejection_reason in TIMEOUTS.values()


def _end_reasons(fulfilment: Fulfilment) -> Fulfilment:
    """Drop the reasons that the order's new status has ended."""
    if is_timed_out(fulfilment) and fulfilment.order_status in (*TIMEOUTS, "CONFIRMED"):
        fulfilment = replace(fulfilment, rejection_reason="")
    if fulfilment.order_status == "CANCELLED" and fulfilment.blocked_reason.startswith(CONFIRMED_BUT):
        fulfilment = replace(fulfilment, blocked_reason="")
    return fulfilment


def _get_step_kind(step: str) -> str:
    """Return a step's name without the number that makes it unique."""
    return step.partition("-")[0]


def _remove_pending(fulfilment: Fulfilment, step: str) -> Fulfilment:
    pending = tuple(name for name in fulfilment.pending_steps if name != step)
    return replace(fulfilment, pending_steps=pending)


def _set_rejection_reason(fulfilment: Fulfilment, reason: str) -> Fulfilment:
    """Set the reason unless there is one: the first reason is the cause, the others follow from it.

    A time that is up gives way to any other reason, since that one does not end with the order's status.
    """
    first = "" if is_timed_out(fulfilment) else fulfilment.rejection_reason
    return replace(fulfilment, rejection_reason=first or reason or fulfilment.rejection_reason)


STATUS_BY_EVENT = {
    "OrderHeld": "HELD",
    "OrderConfirmed": "CONFIRMED",
    "OrderRejected": "REJECTED",
    "OrderCancelled": "CANCELLED",
    "OrderShipped": "SHIPPED",
    "OrderReturned": "RETURNED",
}
"""The status after an event, by its name in any version. Other events, also future ones, leave the status."""


CONTENTS_EVENTS = (v2.OrderPlaced, v1.OrderLineAdded, v1.OrderLineRemoved, v1.ShippingAddressChanged)
"""The events that change the order's lines or addresses."""


def apply_event(fulfilment: Fulfilment, event: Any) -> Fulfilment:
    """Apply an event of the order."""
    match event:
        case v2.OrderPlaced():
            return begin_fulfilment(fulfilment, event)
        case v1.OrderLineAdded():
            group = event.shipping_group_id
            line = Line(group, event.line.sku, dict(fulfilment.warehouses)[group], event.line.quantity)
            return replace_lines(fulfilment, event, (*fulfilment.lines, line))
        case v1.OrderLineRemoved():
            removed = (event.shipping_group_id, event.sku)
            lines = (line for line in fulfilment.lines if (line.shipping_group_id, line.sku) != removed)
            return replace_lines(fulfilment, event, tuple(lines))
        case v1.OrderApproved():
            status = "PLACED" if fulfilment.order_status == "HELD" else fulfilment.order_status
            return replace(fulfilment, order_status=status, approved=True)
        case _:
            status = STATUS_BY_EVENT.get(event.DESCRIPTOR.name, fulfilment.order_status)
            return replace(fulfilment, order_status=status)


def begin_fulfilment(before: Fulfilment, event: v2.OrderPlaced) -> Fulfilment:
    """Begin with a placed order. Before its event only an assessment can have arrived."""
    lines = [
        Line(group.shipping_group_id, line.sku, group.warehouse_id, line.quantity)
        for group in event.groups
        for line in group.lines
    ]
    fulfilment = replace(
        before,
        order_id=event.order_id,
        customer_id=event.customer_id,
        account_id=event.account_id,
        warehouses=tuple((group.shipping_group_id, group.warehouse_id) for group in event.groups),
        order_status="PLACED",
    )
    return replace(replace_lines(fulfilment, event, tuple(lines)), lines_changed=False)


def replace_lines(fulfilment: Fulfilment, event: Any, lines: tuple[Line, ...]) -> Fulfilment:
    """Replace the lines, and the total by that of the event."""
    total = event.total
    amount = {"currency_code": total.currency_code, "units": total.units, "nanos": total.nanos}
    return replace(fulfilment, lines=lines, lines_changed=True, **amount)


def apply_assessment(fulfilment: Fulfilment, version: int, suspicion: str) -> Fulfilment:
    """Apply the assessment of a version of the order, unless that version or a later one was assessed."""
    if fulfilment.assessed and version <= fulfilment.assessed_version:
        return fulfilment
    return replace(fulfilment, assessed=True, assessed_version=version, suspicion=suspicion)


CHANGES_ON_SUCCESS: dict[str, dict[str, Any]] = {
    "reserve": {"stock": ClaimState.OPEN},
    "firm_stock": {"stock": ClaimState.FIRM},
    "release_stock": {"stock": ClaimState.RELEASED},
    "commit_stock": {"stock": ClaimState.SETTLED},
    "hold_money": {"money": ClaimState.OPEN},
    "firm_money": {"money": ClaimState.FIRM},
    "release_money": {"money": ClaimState.RELEASED},
    "capture_money": {"money": ClaimState.SETTLED},
    "refund": {"refunded": True},
}
"""The fields to set when a step of this kind succeeds."""
ORDER_STEPS = ("hold_order", "confirm", "reject")
"""Steps that change the order, and that it rejects if it has changed otherwise. The event of either change
may arrive before or after the answer."""
REASONS_OF_CHANGE = ("VERSION_MISMATCH", "ORDER_HELD", "ORDER_ALREADY_")
"""How the reasons begin with which an order that has changed rejects these steps."""
LOST_CLAIM_REASONS = ("_EXPIRED", "_ALREADY_RELEASED")
"""How the reasons end with which a claim that is gone rejects to become firm."""
FALLIBLE_STEPS = ("reserve", "hold_money", "firm_stock", "firm_money")
"""Steps whose rejection means that the order cannot be fulfilled."""


def apply_success(fulfilment: Fulfilment, kind: str, version: int) -> Fulfilment:
    """Apply the success of a step of this kind, which left its aggregate at a version."""
    match kind:
        case "assess":  # the assessment is an event; the answer to an earlier release's query is not used
            return fulfilment
        case "hold_order" | "confirm" | "reject":
            return replace(fulfilment, awaited_version=max(version, fulfilment.sent_at_version + 1))
        case "restock":
            return replace(fulfilment, restocked=fulfilment.restocked + 1)
        case _:
            return replace(fulfilment, **CHANGES_ON_SUCCESS[kind])


def apply_rejection(fulfilment: Fulfilment, kind: str, reason: str, version: int) -> Fulfilment:
    """Apply the rejection of a step of this kind.

    Args:
        fulfilment: the fulfilment without the pending step.
        kind: the kind of the step.
        reason: the reason of the rejection.
        version: the version of the aggregate that rejected it; 0 if unknown.
    """
    if kind == "assess":
        return apply_assessment(fulfilment, fulfilment.asked_version, f"assessment failed: {reason}")
    # An order of a later version than the step was sent for has changed; no later version is no explanation.
    later = version or fulfilment.sent_at_version + 1
    if kind in ORDER_STEPS and reason.startswith(REASONS_OF_CHANGE) and later > fulfilment.sent_at_version:
        return replace(fulfilment, awaited_version=later)
    if kind in ("firm_stock", "firm_money") and reason.endswith(LOST_CLAIM_REASONS):
        fulfilment = replace(fulfilment, claim_lost=True)
    if kind in FALLIBLE_STEPS:
        return _set_rejection_reason(fulfilment, reason)
    if (kind, reason) == ("restock", "PRODUCT_DISCONTINUED"):  # skip these goods, a person must count them
        return replace(fulfilment, restocked=fulfilment.restocked + 1)
    return replace(fulfilment, blocked_reason=f"{kind} was rejected: {reason}")
