"""Finds orders that a fulfilment has rejected for a time that was not up."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from command_server.contexts.ordering.domain import messages as orders
from process_manager.sagas.fulfilment import CONFIRMATION_TIMEOUT, REVIEW_TIMEOUT

TIMEOUTS: dict[str, tuple[type[Any], timedelta]] = {
    "FULFILMENT_TIMED_OUT": (orders.OrderPlaced | orders.OrderApproved, CONFIRMATION_TIMEOUT),  # type: ignore[dict-item]
    "REVIEW_TIMED_OUT": (orders.OrderHeld, REVIEW_TIMEOUT),
}
"""The events after which each time begins, and its length."""


def find_wrong_timeouts(history: Iterable[tuple[str, Any]]) -> list[str]:
    """Return a text for each rejection whose time was not up, or not the time of the order's last change."""
    wrong, began, since = [], None, datetime.min
    for _, event in history:
        if isinstance(event, orders.OrderRejected) and event.reason in TIMEOUTS:
            first, length = TIMEOUTS[event.reason]
            if not isinstance(began, first) or event.rejected_at < since + length:
                wrong.append(f"{event.reason} after {began}")
        elif at := _find_beginning(event):
            began, since = event, at
    return wrong


def _find_beginning(event: Any) -> datetime | None:
    match event:
        case orders.OrderPlaced():
            return event.placed_at
        case orders.OrderApproved():
            return event.approved_at
        case orders.OrderHeld():
            return event.held_at
    return None
