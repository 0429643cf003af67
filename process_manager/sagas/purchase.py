"""The purchase of a booking: hold its price on the buyer's account, issue the tickets, capture the price.

How it works. Events alone tell the status of the booking, answers that of the money. The next step follows
from both. Before the tickets are issued, a failure is undone: the money is released, then the seats. From
then on steps are tried until they succeed. Tickets that are returned, by the buyer or because the show is
cancelled, are refunded.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5

from diptych.banking.v1 import command_service_pb2 as banking
from diptych.ticketing.v1 import command_service_pb2 as ticketing
from diptych.ticketing.v1 import events_pb2 as events
from google.type.money_pb2 import Money
from msgspec import Struct
from msgspec.structs import replace

from contracts.events.ticketing import EVENTS
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
    Timer,
    TimerFired,
)
from process_manager.subscriptions import Subscription

PURCHASE_TIMEOUT = timedelta(minutes=15)
"""Time after which a purchase fails whose tickets are not issued."""
MONEY_LIFETIME = timedelta(hours=1)
"""Time until the deadline of the hold on the account; longer than that of a purchase."""
MAX_DURATION = timedelta(minutes=1)
"""Time after which a purchase is overdue that needs no person."""
DEADLINE = "deadline"
PURCHASE_IDS = UUID("7be3c5e2-55b6-5b8e-9c0d-0f6a3b1d7a51")
"""UUID namespace of the holds and refunds of purchases."""


class MoneyState(StrEnum):
    """The state of the hold on the account."""

    NONE = "NONE"
    OPEN = "OPEN"
    FIRM = "FIRM"
    RELEASED = "RELEASED"
    CAPTURED = "CAPTURED"
    REFUNDED = "REFUNDED"


class Purchase(Struct, frozen=True):
    """The state of the saga. It is stored as JSON; fields added later need defaults."""

    booking_id: str = ""
    account_id: str = ""
    currency_code: str = ""
    units: int = 0
    nanos: int = 0
    status: str = "NONE"
    """NONE, PAYING, SOLD, RETURNED or FAILED, as known from events and from the answer to FailPurchase."""
    money: MoneyState = MoneyState.NONE
    issued: bool = False
    """Whether IssueTickets was accepted; its event may not be here yet."""
    failure: str = ""
    """Why the purchase fails; empty if it does not."""
    pending: str = ""
    """The step without an answer."""
    blocked_reason: str = ""
    buyer_id: str = ""

    @property
    def has_cost(self) -> bool:
        return bool(self.units or self.nanos)


def react(purchase: Purchase, input_: Input) -> Reaction[Purchase]:
    begins = not purchase.booking_id
    purchase = apply(purchase, input_)
    send = plan(purchase, input_.at)
    if send:
        purchase = replace(purchase, pending=send.step)
    timers = [Timer(DEADLINE, input_.at + PURCHASE_TIMEOUT)] if begins else []
    if purchase.status != "PAYING":
        timers = [Timer(DEADLINE, None)]
    return Reaction(purchase, [send] if send else [], timers)


def apply(purchase: Purchase, input_: Input) -> Purchase:
    """Change what is known."""
    match input_:
        case EventReceived(events.PurchaseRequested() as event):
            total = event.total
            return Purchase(
                event.booking_id,
                event.account_id,
                total.currency_code,
                total.units,
                total.nanos,
                "PAYING",
                buyer_id=event.buyer_id,
            )
        case EventReceived(events.TicketsIssued()):
            return replace(purchase, status="SOLD", issued=True)
        case EventReceived(events.TicketsReturned()):
            return replace(purchase, status="RETURNED")
        case StepSucceeded(step):
            return apply_success(replace(purchase, pending=""), step)
        case StepRejected(step, reason):
            return apply_rejection(replace(purchase, pending=""), step, reason)
        case TimerFired() if may_fail(purchase):
            return replace(purchase, failure=purchase.failure or "PURCHASE_TIMED_OUT")
        case RetryRequested():
            return replace(purchase, blocked_reason="")
        case AbortRequested(reason):
            if not may_fail(purchase):
                raise ActionNotPossible("cannot abort: the tickets are issued, return them instead")
            return replace(purchase, failure=purchase.failure or reason, blocked_reason="")
    return purchase


def may_fail(purchase: Purchase) -> bool:
    """Return whether the tickets cannot have been issued yet."""
    return purchase.status == "PAYING" and not purchase.issued and purchase.pending != "issue"


SUCCESSES = {
    "hold_money": MoneyState.OPEN,
    "firm_money": MoneyState.FIRM,
    "release_money": MoneyState.RELEASED,
    "capture_money": MoneyState.CAPTURED,
    "refund": MoneyState.REFUNDED,
}
"""The state of the money after each step."""


def apply_success(purchase: Purchase, step: str) -> Purchase:
    match step:
        case "issue":
            return replace(purchase, issued=True)
        case "fail":
            return replace(purchase, status="FAILED")
    return replace(purchase, money=SUCCESSES[step])


def apply_rejection(purchase: Purchase, step: str, reason: str) -> Purchase:
    if step in ("hold_money", "firm_money", "issue"):
        return replace(purchase, failure=purchase.failure or reason)
    return replace(purchase, blocked_reason=f"{step} was rejected: {reason}")


def plan(purchase: Purchase, at: datetime) -> Send | None:
    """Return the next step, or None while one is unanswered, an event is awaited, or nothing is left."""
    if purchase.pending or purchase.blocked_reason:
        return None
    active = purchase.money in (MoneyState.OPEN, MoneyState.FIRM)
    match purchase.status:
        case "PAYING" if purchase.failure:
            return release_money(purchase) if active else fail(purchase)
        case "PAYING" if purchase.has_cost and purchase.money is not MoneyState.FIRM:
            return hold_money(purchase, at) if purchase.money is MoneyState.NONE else firm_money(purchase)
        case "PAYING":
            return None if purchase.issued else issue(purchase)
        case "SOLD" | "RETURNED" if active:
            return Send("capture_money", banking.CaptureHoldRequest(hold_id=derive_hold_id(purchase)))
        case "RETURNED" if purchase.money is MoneyState.CAPTURED:
            return refund(purchase)
    return None


def hold_money(purchase: Purchase, at: datetime) -> Send:
    request = banking.PlaceHoldRequest(
        hold_id=derive_hold_id(purchase),
        account_id=purchase.account_id,
        amount=build_total(purchase),
        reference=f"tickets {purchase.booking_id}",
        customer_id=purchase.buyer_id,
    )
    request.deadline.FromDatetime(at + MONEY_LIFETIME)
    return Send("hold_money", request)


def firm_money(purchase: Purchase) -> Send:
    """Remove the hold's deadline: from here on the tickets can be paid."""
    return Send("firm_money", banking.FirmHoldRequest(hold_id=derive_hold_id(purchase)))


def release_money(purchase: Purchase) -> Send:
    request = banking.ReleaseHoldRequest(hold_id=derive_hold_id(purchase), reason=purchase.failure[:500])
    return Send("release_money", request)


def issue(purchase: Purchase) -> Send:
    return Send("issue", ticketing.IssueTicketsRequest(booking_id=purchase.booking_id))


def fail(purchase: Purchase) -> Send:
    request = ticketing.FailPurchaseRequest(booking_id=purchase.booking_id, reason=purchase.failure[:500])
    return Send("fail", request)


def refund(purchase: Purchase) -> Send:
    request = banking.PayRefundRequest(
        refund_id=str(uuid5(PURCHASE_IDS, f"refund/{purchase.booking_id}")),
        account_id=purchase.account_id,
        amount=build_total(purchase),
        reference=f"refund of tickets {purchase.booking_id}",
    )
    return Send("refund", request)


def derive_hold_id(purchase: Purchase) -> str:
    return str(uuid5(PURCHASE_IDS, f"hold/{purchase.booking_id}"))


def build_total(purchase: Purchase) -> Money:
    return Money(currency_code=purchase.currency_code, units=purchase.units, nanos=purchase.nanos)


def describe_status(purchase: Purchase) -> SagaStatus:
    blocked_reason = purchase.blocked_reason
    settled = not purchase.has_cost or purchase.money in ENDS.get(purchase.status, ())
    match purchase.status:
        case "FAILED":
            return SagaStatus("FAILED", True)
        case "PAYING" if purchase.failure:
            return SagaStatus("UNWINDING", False, MAX_DURATION, blocked_reason=blocked_reason)
        case "PAYING":
            waiting_for = "the event of the issued tickets" if purchase.issued else ""
            return SagaStatus("PAYING", False, MAX_DURATION, waiting_for, blocked_reason)
        case "SOLD" if not settled:
            return SagaStatus("CAPTURING", False, MAX_DURATION, blocked_reason=blocked_reason)
        case "RETURNED" if not settled:
            return SagaStatus("REFUNDING", False, MAX_DURATION, blocked_reason=blocked_reason)
    return SagaStatus(purchase.status, True)


ENDS: dict[str, Sequence[MoneyState]] = {
    "SOLD": (MoneyState.CAPTURED,),
    "RETURNED": (MoneyState.REFUNDED,),
}
"""The states of the money in which nothing is left to do, by the status of the booking."""

PURCHASES: Saga[Purchase] = Saga(
    name="purchase.purchase",
    subscribes_to=(
        Subscription(
            "ticketing.booking",
            EVENTS,
            key={  # bookings that are never bought have no instance
                events.PurchaseRequested: "booking_id",
                events.TicketsIssued: "booking_id",
                events.TicketsReturned: "booking_id",
            },
        ),
    ),
    begins="first_event",
    requests=(
        banking.PlaceHoldRequest,
        banking.FirmHoldRequest,
        banking.ReleaseHoldRequest,
        banking.CaptureHoldRequest,
        banking.PayRefundRequest,
        ticketing.IssueTicketsRequest,
        ticketing.FailPurchaseRequest,
    ),
    initial=Purchase(),
    react=react,
    describe_status=describe_status,
)
SAGAS = (PURCHASES,)
