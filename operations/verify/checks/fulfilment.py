"""What fulfilments have done, from the events: an order that is confirmed has its stock and its money, once;
one that is rejected or cancelled has neither.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from diptych.banking.v1 import command_service_pb2 as banking_commands
from diptych.banking.v1.types_pb2 import Hold
from diptych.inventory.v1 import command_service_pb2 as inventory_commands
from diptych.inventory.v1.types_pb2 import Reservation
from diptych.ordering.v1.types_pb2 import Order

from operations.verify.checks import stored_streams
from operations.verify.contexts import banking, inventory, ordering
from operations.verify.model import Aggregate
from operations.verify.recheck import settled
from operations.verify.report import Problem, Report
from operations.verify.sources.event_store import PAGE, Store

SAGA = "fulfilment.fulfilment"
ENDS: Mapping[str, tuple[Collection[str], str, str]] = {
    "CONFIRMED": (("CONFIRMED",), "FIRM", "FIRM"),
    "FULFILLED": (("SHIPPED", "DELIVERED"), "COMMITTED", "CAPTURED"),
    "RETURNED": (("RETURNED",), "COMMITTED", "CAPTURED"),
    "REJECTED": (("REJECTED",), "", ""),
    "CANCELLED": (("CANCELLED",), "", ""),
}
"""Where a fulfilment rests: in which states its order is then, and what of its stock and money stands."""

_RESTS = """
SELECT id, status FROM sagas g
WHERE saga = 'fulfilment.fulfilment' AND blocked_reason = '' AND status = ANY(CAST(:ends AS text[]))
AND NOT EXISTS (SELECT FROM saga_steps s WHERE s.saga = g.saga AND s.id = g.id AND s.outcome IS NULL)
"""
RESTING = f"{_RESTS} AND id > :after ORDER BY id LIMIT :limit"
SELECTED = f"{_RESTS} AND id = ANY(CAST(:ids AS text[])) ORDER BY id"
SENT = """
SELECT id, method, request FROM saga_steps
WHERE saga = 'fulfilment.fulfilment' AND id = ANY(CAST(:ids AS text[])) AND outcome = 'OK'
"""

RESERVE = "/diptych.inventory.v1.CommandService/ReserveStock"
HOLD = "/diptych.banking.v1.CommandService/PlaceHold"
REFUND = "/diptych.banking.v1.CommandService/Deposit"

AGGREGATES: Mapping[str, Aggregate] = {
    aggregate.stream_type: aggregate
    for aggregate in (ordering.ORDER, *inventory.AGGREGATES, *banking.AGGREGATES)
}


async def check(store: Store, report: Report, deadline: float) -> None:
    """Compare all fulfilments that rest.

    Args:
        store: where they are.
        report: takes what is found.
        deadline: until when what changes is looked at again.
    """
    after = ""
    while page := await store.rows(RESTING, after=after, ends=list(ENDS), limit=PAGE):
        after = page[-1].id
        if suspects := {problem.subject.rpartition(" ")[2] for problem in await look(store, page)}:
            report.add_all(await settled(lambda suspects=suspects: _again(store, suspects), deadline))  # type: ignore[misc]


async def _again(store: Store, ids: Collection[str]) -> Sequence[Problem]:
    """Look once more at those of these fulfilments that rest now."""
    rows = await store.rows(SELECTED, ids=list(ids), ends=list(ENDS))
    return await look(store, rows)


async def look(store: Store, fulfilments: Sequence[Any]) -> list[Problem]:
    """Return what is wrong with these fulfilments."""
    sent: dict[str, list[Any]] = defaultdict(list)
    for row in await store.rows(SENT, ids=[row.id for row in fulfilments]):
        sent[row.id].append(row)
    made = {row.id: Made(sent[row.id]) for row in fulfilments}
    names = [name for row in fulfilments for name in (f"ordering.order.{row.id}", *made[row.id].streams)]
    views = await _views(store, names)
    return [
        Problem("sagas", f"saga {SAGA} {row.id}", wrong)
        for row in fulfilments
        for wrong in _wrong(row.id, row.status, made[row.id], views)
    ]


class Made:
    """What a fulfilment has reserved, held and refunded, from the requests that were accepted."""

    def __init__(self, sent: Sequence[Any]) -> None:
        self.streams: list[str] = []
        self.refunds: list[Any] = []
        for row in sent:
            if row.method == RESERVE:
                id_ = inventory_commands.ReserveStockRequest.FromString(row.request).reservation_id
                self.streams.append(f"inventory.reservation.{id_}")
            elif row.method == HOLD:
                id_ = banking_commands.PlaceHoldRequest.FromString(row.request).hold_id
                self.streams.append(f"banking.hold.{id_}")
            elif row.method == REFUND:
                self.refunds.append(banking_commands.DepositRequest.FromString(row.request).amount)


def _wrong(id_: str, status: str, made: Made, views: Mapping[str, Any]) -> Iterator[str]:
    states, stock, money = ENDS[status]
    order = views.get(f"ordering.order.{id_}")
    if order is None:
        return  # which is a finding of its own
    state = Order.State.Name(order.state).removeprefix("STATE_")
    if state not in states:
        yield f"it is {status}, its order is {state}"
        return
    found = [views[name] for name in made.streams if name in views]
    standing_by = {view.__class__: view for view in found if _state(view) != "RELEASED"}
    live = Counter(type(view) for view in found if _state(view) != "RELEASED")
    costs = bool(order.total.units or order.total.nanos)
    for kind, expected in ((Reservation, stock), (Hold, money if costs else "")):
        if live[kind] != bool(expected):
            yield f"it is {status}, and {live[kind]} {kind.DESCRIPTOR.name}s stand"
        elif expected and _state(standing_by[kind]) != expected:
            yield f"it is {status}, its {kind.DESCRIPTOR.name} is {_state(standing_by[kind])}"
        elif expected and _worth(standing_by[kind]) != _worth(order, kind):
            yield f"its {kind.DESCRIPTOR.name} is not what is ordered"
    if made.refunds != ([order.total] if status == "RETURNED" and costs else []):
        yield f"it is {status}, and {len(made.refunds)} refunds were made"


def _state(view: Any) -> str:
    return str(type(view).State.Name(view.state)).removeprefix("STATE_")


def _worth(view: Any, of: type[Any] | None = None) -> Any:
    """Return the pieces or the amount of a reservation or a hold, or of an order that needs one."""
    if of is Hold:
        return view.total
    if isinstance(view, Hold):
        return view.captured if _state(view) == "CAPTURED" else view.amount
    lines = (
        [(line, line.warehouse_id) for line in view.lines]
        if isinstance(view, Reservation)
        else [(line, group.warehouse_id) for group in view.shipping_groups for line in group.lines]
    )
    pieces: Counter[tuple[str, str]] = Counter()
    for line, warehouse_id in lines:
        pieces[line.sku, warehouse_id] += line.quantity
    return pieces


async def _views(store: Store, names: Sequence[str]) -> dict[str, Any]:
    """Return what these streams fold to; nothing for those that do not."""
    found: dict[str, Any] = {}
    for name, stream in (await store.streams(names)).items():
        aggregate = AGGREGATES[stream.row.type] if stream.row else None
        if aggregate is None:
            continue
        events, unreadable = stored_streams.parsed(stream, aggregate.messages())
        if events and not unreadable:
            found[name] = aggregate.readings[0].fold(events)
    return found
