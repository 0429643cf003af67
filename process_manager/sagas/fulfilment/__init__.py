"""The fulfilment of an order: assess it, reserve stock, hold money, confirm; then ship, commit and capture.

The saga is a plan over facts. Each input changes the facts (facts.py), and the next steps follow from the
facts alone (plan.py), so the saga does not depend on the order in which events, replies and timers arrive.
Before shipping, a failure is compensated: the steps taken are undone in reverse. From then on, steps are
tried until they succeed. Nothing is acquired for an order that was not assessed, or that is suspicious and
not approved, whoever confirmed it. Its progress is recorded beside that (progress.py).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from diptych.ordering.v1.events_pb2 import OrderAssessed
from msgspec.structs import replace

from contracts.events.ordering import EVENTS
from process_manager.saga import (
    Input,
    Reaction,
    Saga,
    SagaStatus,
    StepRejected,
    StepSucceeded,
    Timer,
)
from process_manager.sagas.fulfilment.facts import Fulfilment, apply_input
from process_manager.sagas.fulfilment.plan import compensate, plan
from process_manager.sagas.fulfilment.progress import RECORD, is_unrecorded, record
from process_manager.sagas.fulfilment.requests import REQUESTS
from process_manager.subscriptions import Subscription

CONFIRMATION_TIMEOUT = timedelta(minutes=15)
"""Time after which a placed order that is not confirmed is rejected; a review restarts it."""
REVIEW_TIMEOUT = timedelta(days=3)
"""Time after which an order still in review is rejected."""
MAX_UNATTENDED_DURATION = timedelta(minutes=1)
"""Time after which a fulfilment is overdue in any other state that needs no person."""
DEADLINE = "deadline"


def react(fulfilment: Fulfilment, input_: Input) -> Reaction[Fulfilment]:
    previous_status = fulfilment.order_status
    if isinstance(input_, StepSucceeded | StepRejected) and input_.step.startswith(f"{RECORD}-"):
        return Reaction(fulfilment)
    fulfilment, steps = plan(apply_input(fulfilment, input_), input_.at)
    if steps:
        names = tuple(send.step for send in steps)
        fulfilment = replace(
            fulfilment,
            pending_steps=(*fulfilment.pending_steps, *names),
            sent_at_version=fulfilment.order_version,
        )
    fulfilment, records = record(fulfilment, describe_status(fulfilment), input_.at)
    timers = _set_timers(previous_status, fulfilment.order_status, input_.at)
    return Reaction(fulfilment, [*steps, *records], timers)


def _set_timers(previous_status: str, order_status: str, at: datetime) -> Sequence[Timer]:
    if previous_status == order_status:
        return ()
    timeout = {"PLACED": CONFIRMATION_TIMEOUT, "HELD": REVIEW_TIMEOUT}.get(order_status)
    return [Timer(DEADLINE, None if timeout is None else at + timeout)]


def describe_status(fulfilment: Fulfilment) -> SagaStatus:
    blocked_reason = fulfilment.blocked_reason
    unattended = MAX_UNATTENDED_DURATION
    match fulfilment.order_status:
        case "CANCELLED" | "REJECTED":
            if fulfilment.pending_steps or compensate(fulfilment):
                return SagaStatus("UNWINDING", False, unattended, blocked_reason=blocked_reason)
            return SagaStatus(fulfilment.order_status, True)
        case "HELD":
            return SagaStatus("IN_REVIEW", False, REVIEW_TIMEOUT, "approval or rejection", blocked_reason)
        case "PLACED" if fulfilment.rejection_reason:
            return SagaStatus("UNWINDING", False, unattended, blocked_reason=blocked_reason)
        case "NONE":  # an assessment has arrived before the order's own event
            return SagaStatus("PREPARING", False, unattended, "the order")
        case "PLACED":
            waiting_for = describe_awaited_event(fulfilment)
            return SagaStatus("PREPARING", False, CONFIRMATION_TIMEOUT, waiting_for, blocked_reason)
        case _ if fulfilment.aborted:
            if fulfilment.pending_steps or compensate(fulfilment):
                return SagaStatus("UNWINDING", False, unattended, blocked_reason=blocked_reason)
            return SagaStatus("ABORTED", True)
        case _ if not fulfilment.settled and not fulfilment.is_assessed:
            waiting_for = describe_awaited_event(fulfilment)
            return SagaStatus("PREPARING", False, unattended, waiting_for, blocked_reason)
        case status if not fulfilment.settled and fulfilment.lacks_approval:
            unapproved = f"{status.lower()}, but nobody has approved it: {fulfilment.suspicion}"
            return SagaStatus("BLOCKED", False, unattended, "approval", blocked_reason or unapproved)
        case "CONFIRMED":
            return SagaStatus("CONFIRMED", False, None, "shipment", blocked_reason)
        case "RETURNED" if _is_taken_back(fulfilment):
            return SagaStatus("RETURNED", True)
        case "RETURNED":
            return SagaStatus("TAKING_BACK", False, unattended, blocked_reason=blocked_reason)
    if fulfilment.settled:
        return SagaStatus("FULFILLED", True)
    return SagaStatus("SHIPPED", False, unattended, blocked_reason=blocked_reason)


def describe_awaited_event(fulfilment: Fulfilment) -> str:
    """Return the event that is awaited before anything is claimed; empty for none."""
    if fulfilment.is_behind:
        return f"version {fulfilment.reported_version} of the order"
    if not fulfilment.pending_steps and fulfilment.awaits_assessment:
        return f"the assessment of version {fulfilment.asked_version}"
    return ""


def _is_taken_back(fulfilment: Fulfilment) -> bool:
    restocked = fulfilment.restocked == len(fulfilment.quantities)
    return fulfilment.settled and restocked and not fulfilment.pending_steps


FULFILMENT: Saga[Fulfilment] = Saga(
    name="fulfilment.fulfilment",
    subscribes_to=(
        Subscription("ordering.order", EVENTS),
        Subscription("ordering.customer_activity", EVENTS, key={OrderAssessed: "order_id"}),
    ),
    begins="first_event",
    requests=REQUESTS,
    initial=Fulfilment(),
    react=react,
    describe_status=describe_status,
    needs_input=is_unrecorded,
)
SAGAS = (FULFILMENT,)
