"""What to do next follows from what is known, and from nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from process_manager.saga import Send
from process_manager.sagas.fulfilment import requests
from process_manager.sagas.fulfilment.facts import DONE, FIRM, GONE, NONE, OPEN, Fulfilment


def plan(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Return what to do next, and what is known of the order then (a new round, perhaps)."""
    if known.under_way or known.blind or known.blocked_reason:
        return known, ()
    match known.order:
        case "CANCELLED" | "REJECTED":
            return known, undo(known)
        case "HELD":
            return known, undo(known) or ([requests.reject(known)] if known.refused else ())
        case "PLACED":
            return before_confirmation(known, at)
        case "CONFIRMED" | "SHIPPED" | "RETURNED":
            return after_confirmation(known, at)
    return known, ()


def before_confirmation(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Bring a placed order to its confirmation, or to its end."""
    if known.refused:
        return known, undo(known) or [requests.reject(known)]
    if not known.assessed:
        return known, [requests.assess(known)]
    if known.suspicion and not known.approved:
        return known, [requests.hold_order(known)]
    known, steps = acquire(known, at)
    return known, steps or [requests.confirm(known)]


def after_confirmation(known: Fulfilment, at: datetime) -> tuple[Fulfilment, Sequence[Send]]:
    """Let goods and money go once the order is shipped, and come back once it is returned."""
    if DONE not in (known.stock, known.money):
        if known.refused:  # somebody else has confirmed what cannot be fulfilled
            return replace(known, blocked_reason=f"confirmed, but {known.refused}", refused=""), ()
        known, steps = acquire(known, at)
        if steps or known.order == "CONFIRMED":
            return known, steps
    steps = let_go(known)
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
        return known, [requests.reserve(known, at)]
    if known.money == NONE and known.costs:
        return known, [requests.hold_money(known, at)]
    steps = []
    if known.stock == OPEN:
        steps.append(requests.firm_stock(known))
    if known.money == OPEN:
        steps.append(requests.firm_money(known))
    return known, steps


def undo(known: Fulfilment) -> Sequence[Send]:
    """Undo the last of what was done, if anything was."""
    if known.money in (OPEN, FIRM):
        return [requests.release_money(known)]
    if known.stock in (OPEN, FIRM):
        return [requests.release_stock(known)]
    return ()


def let_go(known: Fulfilment) -> Sequence[Send]:
    """Let the goods leave, and take the money; both at once, since nothing is undone any more."""
    steps = []
    if known.stock != DONE:
        steps.append(requests.commit_stock(known))
    if known.money != DONE and known.costs:
        steps.append(requests.capture_money(known))
    return steps


def take_back(known: Fulfilment) -> Sequence[Send]:
    """Give the money of a returned order back, then put its goods into stock, a line after the other."""
    if known.costs and not known.refunded:
        return [requests.refund(known)]
    if known.restocked < len(known.pieces):
        return [requests.restock(known)]
    return ()
