"""Plans the next steps of a fulfilment from its facts alone.

How it works:

- `plan` runs after every input. It returns no steps while any step is pending, while an event of the order
  is missing that an answer told of, or while the fulfilment is blocked; so every decision is made on facts
  that are complete.
- Nothing is acquired for an order that is not cleared (`is_cleared`): it is assessed as it is, and again if
  it was edited meanwhile. A suspicious order that is placed is held for review. One that somebody confirmed,
  shipped or returned all the same is blocked: what was claimed is released, and it waits for a person.
- Before shipping the order of steps is: assess, reserve, hold money, make both firm, confirm. When a step
  is rejected, a timeout expires or an operator aborts, `rejection_reason` is set, and `compensate` releases
  the claims, the latest first and one at a time, before the order is rejected.
- What is confirmed with stock and money firm is confirmed: a reason to reject it that came meanwhile ends.
- Changed lines, or a review that released the claims, end the current generation of claims: they are
  released, and the next generation reserves and holds under new ids.
- Once shipped nothing is compensated. Commit and capture are sent together, and a rejection blocks the
  fulfilment until an operator retries. A returned order is then refunded and restocked.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from process_manager.saga import Send
from process_manager.sagas.fulfilment import requests
from process_manager.sagas.fulfilment.facts import CONFIRMED_BUT, ClaimState, Fulfilment


def plan(fulfilment: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Return the steps to send now, and the fulfilment with the changes that the plan itself makes."""
    if fulfilment.pending_steps or fulfilment.is_behind or fulfilment.blocked_reason:
        return fulfilment, ()
    match fulfilment.order_status:
        case "CANCELLED" | "REJECTED":
            return fulfilment, compensate(fulfilment)
        case "HELD":
            rejection = [requests.reject(fulfilment)] if fulfilment.rejection_reason else ()
            return fulfilment, compensate(fulfilment) or rejection
        case "PLACED":
            return plan_confirmation(fulfilment, at)
        case "CONFIRMED" | "SHIPPED" | "RETURNED":
            return plan_delivery(fulfilment, at)
    return fulfilment, ()


def plan_confirmation(fulfilment: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Plan a placed order's next step towards its confirmation or its rejection."""
    if fulfilment.rejection_reason:
        return fulfilment, compensate(fulfilment) or [requests.reject(fulfilment)]
    if not fulfilment.is_assessed:
        return plan_assessment(fulfilment)
    if fulfilment.lacks_approval:
        return fulfilment, [requests.hold_order(fulfilment)]
    fulfilment, steps = claim(fulfilment, at)
    return fulfilment, steps or [requests.confirm(fulfilment)]


def plan_assessment(fulfilment: Fulfilment) -> tuple[Fulfilment, Sequence[Send]]:
    """Ask for the assessment of the order as it is, once."""
    if fulfilment.awaits_assessment:
        return fulfilment, ()
    return replace(fulfilment, asked_version=fulfilment.version_to_assess), [requests.assess(fulfilment)]


def plan_delivery(fulfilment: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Plan the next steps of an order that is confirmed, shipped or returned."""
    if fulfilment.aborted:
        return fulfilment, compensate(fulfilment)
    if not fulfilment.settled and not fulfilment.is_assessed:
        return plan_assessment(fulfilment)
    if not fulfilment.settled and fulfilment.lacks_approval:
        return fulfilment, () if fulfilment.has_left else compensate(fulfilment)
    if not fulfilment.has_left:
        reason = fulfilment.rejection_reason
        fulfilment = replace(fulfilment, rejection_reason="")
        if reason and not fulfilment.is_claimed:  # a person has confirmed an order that cannot be fulfilled
            return replace(fulfilment, blocked_reason=f"{CONFIRMED_BUT}{reason}"), ()
        fulfilment, steps = claim(fulfilment, at)
        if steps or fulfilment.order_status == "CONFIRMED":
            return fulfilment, steps
    steps = settle(fulfilment)
    if not steps and fulfilment.order_status == "RETURNED":
        steps = take_back(fulfilment)
    return fulfilment, steps


def claim(fulfilment: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Reserve stock, hold money, then make both firm; no steps once both are firm."""
    claims = (fulfilment.stock, fulfilment.money)
    unfit = fulfilment.lines_changed or fulfilment.claim_lost
    outdated = unfit and claims != (ClaimState.NONE, ClaimState.NONE)
    if outdated or ClaimState.RELEASED in claims:
        if steps := compensate(fulfilment):
            return fulfilment, steps
        fulfilment = replace(
            fulfilment,
            generation=fulfilment.generation + 1,
            stock=ClaimState.NONE,
            money=ClaimState.NONE,
        )
    fulfilment = replace(fulfilment, lines_changed=False, claim_lost=False)
    if fulfilment.stock == ClaimState.NONE:
        return fulfilment, [requests.reserve(fulfilment, at)]
    if fulfilment.money == ClaimState.NONE and fulfilment.has_cost:
        return fulfilment, [requests.hold_money(fulfilment, at)]
    steps = []
    if fulfilment.stock == ClaimState.OPEN:
        steps.append(requests.firm_stock(fulfilment))
    if fulfilment.money == ClaimState.OPEN:
        steps.append(requests.firm_money(fulfilment))
    return fulfilment, steps


def compensate(fulfilment: Fulfilment) -> Sequence[Send]:
    """Release the latest claim that is not released; no steps if there is none."""
    if fulfilment.money in (ClaimState.OPEN, ClaimState.FIRM):
        return [requests.release_money(fulfilment)]
    if fulfilment.stock in (ClaimState.OPEN, ClaimState.FIRM):
        return [requests.release_stock(fulfilment)]
    return ()


def settle(fulfilment: Fulfilment) -> Sequence[Send]:
    """Commit the stock and capture the money, both at once since neither is compensated any more."""
    steps = []
    if fulfilment.stock != ClaimState.SETTLED:
        steps.append(requests.commit_stock(fulfilment))
    if fulfilment.money != ClaimState.SETTLED and fulfilment.has_cost:
        steps.append(requests.capture_money(fulfilment))
    return steps


def take_back(fulfilment: Fulfilment) -> Sequence[Send]:
    """Refund a returned order, then restock its goods one after the other."""
    if fulfilment.has_cost and not fulfilment.refunded:
        return [requests.refund(fulfilment)]
    if fulfilment.restocked < len(fulfilment.quantities):
        return [requests.restock(fulfilment)]
    return ()
