"""The effects of fulfilments, taken from the events of orders, reservations and holds.

A confirmed order has its stock and its money, once; a rejected, cancelled or aborted order has neither. The
last record of a fulfilment's progress says what its saga says.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from diptych.banking.v1 import command_service_pb2 as banking_commands
from diptych.banking.v1.types_pb2 import Hold
from diptych.inventory.v1 import command_service_pb2 as inventory_commands
from diptych.inventory.v1.types_pb2 import Reservation
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.message import DecodeError

from operations.verify.checks import fulfilment_record
from operations.verify.checks.saga_effects import EffectsCheck, fold_streams, read_accepted_steps
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.sources import PostgresReader

SAGA = "fulfilment.fulfilment"
RECORD = "fulfilment.fulfilment"
NEEDED_STREAMS = frozenset({"ordering.order", "inventory.reservation", "banking.hold", RECORD})
RESTING_STATES: Mapping[str, tuple[Collection[str], str, str]] = {
    "CONFIRMED": (("CONFIRMED",), "FIRM", "FIRM"),
    "FULFILLED": (("SHIPPED", "DELIVERED"), "COMMITTED", "CAPTURED"),
    "RETURNED": (("RETURNED",), "COMMITTED", "CAPTURED"),
    "REJECTED": (("REJECTED",), "", ""),
    "CANCELLED": (("CANCELLED",), "", ""),
    "ABORTED": (("SHIPPED", "DELIVERED", "RETURNED"), "", ""),
}
"""Saga status to the states of its order, its reservation and its hold; empty: none but released ones."""

RESERVE = "/diptych.inventory.v1.CommandService/ReserveStock"
HOLD = "/diptych.banking.v1.CommandService/PlaceHold"
REFUNDS: Mapping[str, type[Any]] = {
    "/diptych.banking.v1.CommandService/PayRefund": banking_commands.PayRefundRequest,
    "/diptych.banking.v1.CommandService/Deposit": banking_commands.DepositRequest,
}
"""The requests of refunds by their methods. Deposit is that of earlier releases."""


async def _check_page(
    postgres: PostgresReader, aggregates: Mapping[str, Aggregate], fulfilments: Sequence[Any]
) -> list[Problem]:
    steps = await read_accepted_steps(postgres, SAGA, fulfilments)
    effects = {row.id: Effects(steps[row.id]) for row in fulfilments}
    names = [
        name
        for row in fulfilments
        for name in (f"ordering.order.{row.id}", f"{RECORD}.{row.id}", *effects[row.id].streams)
    ]
    views = await fold_streams(postgres, aggregates, names)
    return [
        Problem("sagas", f"saga {SAGA} {row.id}", text)
        for row in fulfilments
        for text in _compare(row.id, row.status, effects[row.id], views)
    ]


class Effects:
    """The reservations, holds and refunds of a fulfilment, from its accepted requests."""

    def __init__(self, steps: Sequence[Any]) -> None:
        self.streams: list[str] = []
        """The streams of its reservations and holds."""
        self.refunds: list[Any] = []
        """The refunded amounts."""
        self.unreadable = 0
        """The number of steps whose request cannot be read."""
        for row in steps:
            try:
                self._add(row)
            except DecodeError:
                self.unreadable += 1

    def _add(self, row: Any) -> None:
        if row.method == RESERVE:
            id_ = inventory_commands.ReserveStockRequest.FromString(row.request).reservation_id
            self.streams.append(f"inventory.reservation.{id_}")
        elif row.method == HOLD:
            id_ = banking_commands.PlaceHoldRequest.FromString(row.request).hold_id
            self.streams.append(f"banking.hold.{id_}")
        elif request := REFUNDS.get(row.method):
            self.refunds.append(request.FromString(row.request).amount)


def _compare(id_: str, status: str, effects: Effects, views: Mapping[str, Any]) -> Iterator[str]:
    if effects.unreadable:
        yield f"the requests of {effects.unreadable} steps cannot be read"
        return
    order_states, reservation_state, hold_state = RESTING_STATES[status]
    record = views.get(f"{RECORD}.{id_}")  # none of an instance that an earlier release has ended
    if record is not None and (recorded := _get_state(record)) != status:
        yield f"is {status}, but was last recorded as {recorded}"
    order = views.get(f"ordering.order.{id_}")
    if order is None:
        return  # the checks of its stream report that
    order_state = Order.State.Name(order.state).removeprefix("STATE_")
    if order_state not in order_states:
        yield f"is {status}, but its order is {order_state}"
        return
    related = [views[name] for name in effects.streams if name in views]
    active = [view for view in related if _get_state(view) != "RELEASED"]
    active_by_type = {type(view): view for view in active}
    counts = Counter(type(view) for view in active)
    has_price = bool(order.total.units or order.total.nanos)
    for kind, expected in ((Reservation, reservation_state), (Hold, hold_state if has_price else "")):
        name = kind.DESCRIPTOR.name
        if counts[kind] != bool(expected):
            yield f"is {status}, but has {counts[kind]} active {name}s"
        elif expected and (state := _get_state(active_by_type[kind])) != expected:
            yield f"is {status}, but its {name} is {state}"
        elif expected and _get_content(active_by_type[kind]) != _get_ordered_content(order, kind):
            yield f"its {name} differs from its order"
    if effects.refunds != ([order.total] if status == "RETURNED" and has_price else []):
        yield f"is {status}, but made {len(effects.refunds)} refunds"


def _get_state(view: Any) -> str:
    return str(type(view).State.Name(view.state)).removeprefix("STATE_")


def _get_content(view: Any) -> Any:
    """Return the pieces of a reservation by (sku, warehouse), or the amount of a hold."""
    if isinstance(view, Hold):
        return view.captured if _get_state(view) == "CAPTURED" else view.amount
    return _count_pieces((line, line.warehouse_id) for line in view.lines)


def _get_ordered_content(order: Order, kind: type[Any]) -> Any:
    """Return the content that an order needs of a reservation or a hold."""
    if kind is Hold:
        return order.total
    groups = order.shipping_groups
    return _count_pieces((line, group.warehouse_id) for group in groups for line in group.lines)


def _count_pieces(lines: Iterator[tuple[Any, str]]) -> Counter[tuple[str, str]]:
    pieces: Counter[tuple[str, str]] = Counter()
    for line, warehouse_id in lines:
        pieces[line.sku, warehouse_id] += line.quantity
    return pieces


AGGREGATES = fulfilment_record.AGGREGATES
ASSESSMENTS = {"ordering.customer_activity": lambda message: str(getattr(message, "order_id", ""))}
CHECK = EffectsCheck(SAGA, RESTING_STATES, NEEDED_STREAMS, _check_page)
SAGAS = (SagaSpec(SAGA, "ordering.order", CHECK.run, keys=ASSESSMENTS),)
