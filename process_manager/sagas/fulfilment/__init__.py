"""The fulfilment of an order: looked at, stock reserved, money held, confirmed; then shipped and paid.

The saga is a plan over facts. What it is told changes what it knows (facts.py); what to do next follows from
what it knows alone (plan.py), one thing after the other, and nothing while something is under way. So it does
not matter in which order events, answers and times come. Before shipping whatever fails undoes, in reverse,
what was done; from then on steps are tried until they succeed.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2

from contracts.upcasters.ordering import EVENT_UPCASTERS
from process_manager.saga import Input, Reaction, Saga, SagaStatus, Timer
from process_manager.sagas.fulfilment.facts import Fulfilment, learn
from process_manager.sagas.fulfilment.plan import plan, undo

PATIENCE = timedelta(minutes=15)
"""How long an order may wait to be confirmed; a review not counted."""
REVIEW = timedelta(days=3)
"""How long a review may take."""
SOON = timedelta(minutes=1)
"""How long anything else may take that needs nobody."""
DEADLINE = "deadline"


def react(before: Fulfilment, received: Input) -> Reaction[Fulfilment]:
    """Return what is known then, and what is to be done."""
    known = learn(before, received)
    after, wanted = plan(known, received.at)
    steps = tuple(send.step for send in wanted)
    asked = replace(after, under_way=(*after.under_way, *steps), asked_at=after.version)
    return Reaction(asked if wanted else after, wanted, _timers(before.order, after.order, received.at))


def _timers(before: str, after: str, at: datetime) -> Sequence[Timer]:
    if before == after:
        return ()
    patience = {"PLACED": PATIENCE, "HELD": REVIEW}.get(after)
    return [Timer(DEADLINE, None if patience is None else at + patience)]


def status(known: Fulfilment) -> SagaStatus:
    """Return where a fulfilment is."""
    match known.order:
        case "CANCELLED" | "REJECTED":
            if known.under_way or undo(known):
                return SagaStatus("UNWINDING", False, SOON, blocked_reason=known.blocked_reason)
            return SagaStatus(known.order, True)
        case "HELD":
            return SagaStatus("IN_REVIEW", False, REVIEW, "its approval or rejection", known.blocked_reason)
        case "PLACED" if known.refused:
            return SagaStatus("UNWINDING", False, SOON, blocked_reason=known.blocked_reason)
        case "PLACED":
            return SagaStatus("PREPARING", False, PATIENCE, blocked_reason=known.blocked_reason)
        case "CONFIRMED":
            return SagaStatus("CONFIRMED", False, None, "its shipping", known.blocked_reason)
        case "RETURNED" if known.done and known.restocked == len(known.pieces) and not known.under_way:
            return SagaStatus("RETURNED", True)
        case "RETURNED":
            return SagaStatus("TAKING_BACK", False, SOON, blocked_reason=known.blocked_reason)
    if known.done:
        return SagaStatus("FULFILLED", True)
    return SagaStatus("SHIPPED", False, SOON, blocked_reason=known.blocked_reason)


FULFILMENT: Saga[Fulfilment] = Saga(
    "fulfilment.fulfilment", "ordering.order", (v1, v2), Fulfilment(), react, status, EVENT_UPCASTERS
)
