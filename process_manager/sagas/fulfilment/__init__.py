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
from process_manager.saga import Next, Saga, Standing, Timer, Told
from process_manager.sagas.fulfilment.facts import Fulfilment, learn
from process_manager.sagas.fulfilment.plan import plan, undo

PATIENCE = timedelta(minutes=15)
"""How long an order may wait to be confirmed; a review not counted."""
REVIEW = timedelta(days=3)
"""How long a review may take."""
SOON = timedelta(minutes=1)
"""How long anything else may take that needs nobody."""
DEADLINE = "deadline"


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


def standing(known: Fulfilment) -> Standing:
    """Return where a fulfilment is."""
    match known.order:
        case "CANCELLED" | "REJECTED":
            if known.under_way or undo(known):
                return Standing("UNWINDING", False, SOON, trouble=known.trouble)
            return Standing(known.order, True)
        case "HELD":
            return Standing("IN_REVIEW", False, REVIEW, "its approval or rejection", known.trouble)
        case "PLACED" if known.refused:
            return Standing("UNWINDING", False, SOON, trouble=known.trouble)
        case "PLACED":
            return Standing("PREPARING", False, PATIENCE, trouble=known.trouble)
        case "CONFIRMED":
            return Standing("CONFIRMED", False, None, "its shipping", known.trouble)
        case "RETURNED" if known.done and known.restocked == len(known.pieces) and not known.under_way:
            return Standing("RETURNED", True)
        case "RETURNED":
            return Standing("TAKING_BACK", False, SOON, trouble=known.trouble)
    if known.done:
        return Standing("FULFILLED", True)
    return Standing("SHIPPED", False, SOON, trouble=known.trouble)


FULFILMENT: Saga[Fulfilment] = Saga(
    "fulfilment.fulfilment", "ordering.order", (v1, v2), Fulfilment(), react, standing, EVENT_UPCASTERS
)
